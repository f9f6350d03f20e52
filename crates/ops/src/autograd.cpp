// Lets a function written in Rust take part in libtorch's differentiation, which libtorch's bindings for Rust cannot
// do. autograd.rs is the other half of this file.

#include <torch/csrc/autograd/function.h>

#include <mutex>

using torch::autograd::Node;
using torch::autograd::variable_list;

namespace {

// From the gradient of the output to those of the `count` inputs, which are null at first. Owns the gradient. Returns
// false if it failed, with a text that stays valid until this thread's next call.
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

  // libtorch calls this after a backward pass whose graph is not kept.
  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (state != nullptr) {
      drop(state);
      state = nullptr;
    }
  }

  variable_list apply(variable_list&& outputs) override {
    // libtorch requires this of every node (node.h, on mutex_): two threads may run backward passes at once.
    std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(state != nullptr, "a second backward pass through the same graph: what the gradients need was freed after the first");
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

// Makes `output` the result of a function of `inputs`, if an input requires a gradient. Owns `state`, and gives it to
// `drop` in the end. Returns false where libtorch refuses.
extern "C" bool ops_record_backward(
    at::Tensor* output, at::Tensor* const* inputs, size_t count, void* state, Backward backward,
    void (*drop)(void*)) {
  try {
    auto node = c10::make_intrusive<RustFunction>(state, backward, drop);
    bool needed = false;
    torch::autograd::edge_list edges;
    for (size_t i = 0; i < count; i++) {
      needed |= inputs[i]->requires_grad();
      edges.push_back(torch::autograd::impl::gradient_edge(*inputs[i]));
    }
    if (needed && c10::GradMode::is_enabled()) {
      node->set_next_edges(std::move(edges));
      torch::autograd::create_gradient_edge(*output, node);
    }
    return true;
  } catch (const std::exception&) {
    return false;
  }
}
