//! Lets a function written in Rust take part in libtorch's differentiation.
//!
//! libtorch's bindings differentiate what is made of libtorch's own operations. [`differentiate`] adds
//! operations of ours: whoever computed a result without libtorch says here how gradients flow back
//! through it. (The other half is `autograd.cpp`: a node of libtorch's graph that calls a closure.)

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use tch::Tensor;
use torch_sys::C_tensor;

/// From the gradient of an output to those of the inputs; `None` stands for "not wanted".
type Backward = dyn Fn(&Tensor) -> Vec<Option<Tensor>> + Send;

type Call = unsafe extern "C" fn(
    state: *mut c_void,
    gradient: *mut C_tensor,
    gradients: *mut *mut C_tensor,
    count: usize,
    error: *mut *const c_char,
) -> bool;

unsafe extern "C" {
    fn diffusion_differentiate(
        output: *mut C_tensor,
        inputs: *const *const C_tensor,
        count: usize,
        state: *mut c_void,
        backward: Call,
        drop: unsafe extern "C" fn(*mut c_void),
    ) -> bool;
}

/// Makes `output`, which was computed without libtorch's knowledge, the result of an operation on
/// `inputs`. `backward` gets the gradient of the output, and gives those of the inputs in their order. It
/// must not hold `output` itself (its [`detach`](Tensor::detach) is fine), or neither is ever freed. Does
/// nothing where libtorch would not record either: under [`tch::no_grad`], or if no input requires it. `None` where
/// libtorch refuses, as it does after a tensor was changed that others still need.
pub(crate) fn differentiate(
    mut output: Tensor,
    inputs: &[&Tensor],
    backward: impl Fn(&Tensor) -> Vec<Option<Tensor>> + Send + 'static,
) -> Option<Tensor> {
    let inputs: Vec<*const C_tensor> = inputs.iter().map(|input| input.as_ptr()).collect();
    let state: Box<Box<Backward>> = Box::new(Box::new(backward));
    // SAFETY: the tensors live until the call returns, and keep what they need; the closure lives until
    // libtorch drops its node, which calls `drop_state` once.
    let done = unsafe {
        diffusion_differentiate(
            output.as_mut_ptr(),
            inputs.as_ptr(),
            inputs.len(),
            Box::into_raw(state).cast(),
            call,
            drop_state,
        )
    };
    done.then_some(output)
}

thread_local! {
    /// The text of the last error that this thread gave to libtorch.
    static ERROR: RefCell<CString> = RefCell::default();
}

unsafe extern "C" fn call(
    state: *mut c_void,
    gradient: *mut C_tensor,
    gradients: *mut *mut C_tensor,
    count: usize,
    error: *mut *const c_char,
) -> bool {
    // SAFETY: `state` is what `differentiate` made, the gradient is ours to drop, and there is room for as
    // many gradients as there were inputs, which is what a backward function gives.
    let result = catch_unwind(AssertUnwindSafe(|| unsafe {
        let backward = &*state.cast::<Box<Backward>>();
        let gradient = Tensor::from_ptr(gradient);
        let _guard = tch::no_grad_guard();
        let found = backward(&gradient);
        assert_eq!(found.len(), count, "a gradient for each input, or `None`");
        found
    }));
    match result {
        Ok(found) => {
            for (at, tensor) in found.into_iter().enumerate() {
                let tensor = tensor.map_or(ptr::null_mut(), into_ptr);
                // SAFETY: as above.
                unsafe { *gradients.add(at) = tensor };
            }
            true
        }
        Err(panic) => {
            let text = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
                (Some(text), _) => text.clone(),
                (_, Some(text)) => (*text).to_owned(),
                _ => "a backward function panicked".to_owned(),
            };
            ERROR.with_borrow_mut(|slot| {
                *slot = CString::new(text).unwrap_or_default();
                // SAFETY: there is room for one pointer, and the text lives as long as this thread.
                unsafe { *error = slot.as_ptr() };
            });
            false
        }
    }
}

/// Hands a tensor over to C++.
fn into_ptr(tensor: Tensor) -> *mut C_tensor {
    let mut tensor = std::mem::ManuallyDrop::new(tensor);
    tensor.as_mut_ptr()
}

unsafe extern "C" fn drop_state(state: *mut c_void) {
    // SAFETY: `state` is what `differentiate` made, and this is called once.
    drop(unsafe { Box::from_raw(state.cast::<Box<Backward>>()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tch::{Device, Kind};

    fn three() -> Tensor {
        Tensor::full([1], 3.0, (Kind::Float, Device::Cpu)).set_requires_grad(true)
    }

    #[test]
    fn gradients_flow_through_and_what_a_closure_holds_is_freed() {
        let held = Arc::new(());
        let (x, unused) = (three(), three());
        let square = x.detach().square();
        let (value, keeps) = (x.detach(), held.clone());
        let square = differentiate(square, &[&x, &unused], move |gradient| {
            let _ = &keeps;
            vec![Some(gradient * &value * 2.0), None]
        })
        .unwrap();
        assert_eq!(Arc::strong_count(&held), 2);
        let loss = &square * 5.0;
        loss.backward();
        assert_eq!(x.grad().double_value(&[0]), 30.0);
        assert!(!unused.grad().defined());
        // Freed as soon as gradients have passed, as libtorch does it; a second time is an error.
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(loss.f_backward().is_err());
    }

    #[test]
    fn nothing_is_remembered_where_no_gradient_is_wanted() {
        let held = Arc::new(());
        let keeps = held.clone();
        let x = three();
        let y = tch::no_grad(|| {
            differentiate(x.detach(), &[&x], move |_| {
                let _ = &keeps;
                vec![None]
            })
        })
        .unwrap();
        assert!(!y.requires_grad());
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn a_panic_on_the_way_back_is_an_error_with_its_words() {
        let x = three();
        let y = differentiate(x.detach(), &[&x], |gradient| {
            assert_eq!(gradient.numel(), 7, "seven of them");
            vec![None]
        })
        .unwrap();
        let error = y.f_backward().unwrap_err().to_string();
        assert!(error.contains("seven of them"), "{error}");
        let y = differentiate(x.detach(), &[&x], |_| vec![None, None]).unwrap();
        let error = y.f_backward().unwrap_err().to_string();
        assert!(error.contains("a gradient for each input"), "{error}");
    }
}
