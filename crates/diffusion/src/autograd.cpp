// Lets a function written in Rust take part in libtorch's differentiation: the one thing that its bindings
// for Rust cannot do. See autograd.rs, which is the other half of this file.

#include <torch/csrc/autograd/function.h>

using torch::autograd::Node;
using torch::autograd::variable_list;

namespace {

// From the gradient of the output (null if there is none) to those of the inputs, which arrive null. Returns
// false, with a text that stays valid until this thread's next call, when it failed.
using Backward = bool (*)(void* state, at::Tensor* gradient, at::Tensor** gradients, const char** error);

struct RustFunction : public Node {
  void* state;
  Backward backward;
  void (*drop)(void*);

  RustFunction(void* state, Backward backward, void (*drop)(void*))
      : state(state), backward(backward), drop(drop) {}

  ~RustFunction() override { drop(state); }

  std::string name() const override { return "RustFunction"; }

  variable_list apply(variable_list&& outputs) override {
    const bool defined = outputs[0].defined();
    std::vector<at::Tensor*> found(num_outputs(), nullptr);
    const char* error = nullptr;
    const bool done = backward(
        state, defined ? new at::Tensor(outputs[0]) : nullptr, found.data(), &error);
    variable_list inputs(num_outputs());
    for (size_t i = 0; i < found.size(); i++) {
      if (found[i] != nullptr) {
        inputs[i] = *found[i];
        delete found[i];
      }
    }
    TORCH_CHECK(done, error);
    return inputs;
  }
};

} // namespace

// Makes `output` the result of a function of `inputs`, if anyone will ask for gradients. Takes `state` over,
// and gives it to `drop` in the end.
extern "C" void diffusion_differentiate(
    at::Tensor* output, at::Tensor* const* inputs, size_t count, void* state, Backward backward,
    void (*drop)(void*)) {
  auto node = c10::make_intrusive<RustFunction>(state, backward, drop);
  bool wanted = false;
  torch::autograd::edge_list edges;
  for (size_t i = 0; i < count; i++) {
    wanted |= inputs[i]->requires_grad();
    edges.push_back(torch::autograd::impl::gradient_edge(*inputs[i]));
  }
  if (!wanted || !c10::GradMode::is_enabled()) {
    return;
  }
  node->set_next_edges(std::move(edges));
  torch::autograd::create_gradient_edge(*output, node);
}
