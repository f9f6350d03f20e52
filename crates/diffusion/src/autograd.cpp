// Lets a function written in Rust take part in libtorch's differentiation: the one thing that its bindings
// for Rust cannot do. See autograd.rs, which is the other half of this file.

#include <torch/csrc/autograd/function.h>

#include <mutex>

using torch::autograd::Node;
using torch::autograd::variable_list;

namespace {

// From the gradient of the output to those of the `count` inputs, which arrive null. Returns false, with a text
// that stays valid until this thread's next call, when it failed. Takes the gradient over.
using Backward = bool (*)(
    void* state, at::Tensor* gradient, at::Tensor** gradients, size_t count, const char** error);

struct RustFunction : public Node {
  void* state;
  Backward backward;
  void (*drop)(void*);

  RustFunction(void* state, Backward backward, void (*drop)(void*))
      : state(state), backward(backward), drop(drop) {}

  ~RustFunction() override { release_variables(); }

  std::string name() const override { return "RustFunction"; }

  // libtorch calls it once gradients have passed and are not to pass again.
  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (state != nullptr) {
      drop(state);
      state = nullptr;
    }
  }

  variable_list apply(variable_list&& outputs) override {
    // As libtorch asks of every node (node.h, on mutex_): gradients of two results may pass in two threads.
    std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(state != nullptr, "gradients have passed through this function already, and what they need is freed");
    variable_list inputs(num_outputs());
    if (!outputs[0].defined()) {
      return inputs;
    }
    std::vector<at::Tensor*> found(num_outputs(), nullptr);
    const char* error = nullptr;
    const bool done = backward(state, new at::Tensor(outputs[0]), found.data(), found.size(), &error);
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
// and gives it to `drop` in the end. Returns false where libtorch refuses.
extern "C" bool diffusion_differentiate(
    at::Tensor* output, at::Tensor* const* inputs, size_t count, void* state, Backward backward,
    void (*drop)(void*)) {
  try {
    auto node = c10::make_intrusive<RustFunction>(state, backward, drop);
    bool wanted = false;
    torch::autograd::edge_list edges;
    for (size_t i = 0; i < count; i++) {
      wanted |= inputs[i]->requires_grad();
      edges.push_back(torch::autograd::impl::gradient_edge(*inputs[i]));
    }
    if (wanted && c10::GradMode::is_enabled()) {
      node->set_next_edges(std::move(edges));
      torch::autograd::create_gradient_edge(*output, node);
    }
    return true;
  } catch (const std::exception&) {
    return false;
  }
}
