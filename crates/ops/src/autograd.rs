//! Lets a function written in Rust take part in libtorch's differentiation.
//!
//! libtorch differentiates what is made of its own operations. [`record_backward`] adds operations that are computed
//! without libtorch: the caller gives the function that computes the gradients of the inputs. (The other half is
//! `autograd.cpp`: a node of libtorch's graph that calls this function.)

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use anyhow::Result;
use tch::Tensor;
use torch_sys::C_tensor;

/// Gradients of the inputs of an operation, in their order. `None` stands for an input that needs none.
pub(crate) type Gradients = Vec<Option<Tensor>>;

/// From the gradient of an output to those of the inputs.
type Backward = dyn Fn(&Tensor) -> Result<Gradients> + Send;

/// As libtorch's node calls a [`Backward`].
type BackwardCallback = unsafe extern "C" fn(
    state: *mut c_void,
    gradient: *mut C_tensor,
    gradients: *mut *mut C_tensor,
    count: usize,
    error: *mut *const c_char,
) -> bool;

unsafe extern "C" {
    fn ops_record_backward(
        output: *mut C_tensor,
        inputs: *const *const C_tensor,
        count: usize,
        state: *mut c_void,
        backward: BackwardCallback,
        drop: unsafe extern "C" fn(*mut c_void),
    ) -> bool;
}

/// Makes `output`, which was computed without libtorch, the result of an operation on `inputs` in libtorch's graph.
///
/// `backward` takes the gradient of the output, and gives those of the inputs in their order. It must not hold `output`
/// itself (its [`detach`](Tensor::detach) is fine), or neither is ever freed. An error or a panic of `backward` becomes an
/// error of libtorch's `backward`.
///
/// Records nothing where libtorch would record nothing either: under [`tch::no_grad`], or if no input requires a
/// gradient. `None` where libtorch refuses, for example after an input that is a view was changed in place.
pub(crate) fn record_backward(
    mut output: Tensor,
    inputs: &[&Tensor],
    backward: impl Fn(&Tensor) -> Result<Gradients> + Send + 'static,
) -> Option<Tensor> {
    let inputs: Vec<*const C_tensor> = inputs.iter().map(|input| input.as_ptr()).collect();
    let state: Box<Box<Backward>> = Box::new(Box::new(backward));
    // SAFETY: the tensors live until the call returns, and libtorch keeps what it needs of them. The closure lives until
    // libtorch drops its node, which calls `drop_state` once.
    let recorded = unsafe {
        ops_record_backward(
            output.as_mut_ptr(),
            inputs.as_ptr(),
            inputs.len(),
            Box::into_raw(state).cast(),
            call_backward,
            drop_state,
        )
    };
    recorded.then_some(output)
}

thread_local! {
    /// The text of the last error that this thread gave to libtorch.
    static ERROR: RefCell<CString> = RefCell::default();
}

unsafe extern "C" fn call_backward(
    state: *mut c_void,
    gradient: *mut C_tensor,
    gradients: *mut *mut C_tensor,
    count: usize,
    error: *mut *const c_char,
) -> bool {
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `state` is what `record_backward` made, and the gradient is ours to drop.
        let (backward, gradient) = unsafe {
            let backward = &*state.cast::<Box<Backward>>();
            (backward, Tensor::from_ptr(gradient))
        };
        let _guard = tch::no_grad_guard();
        backward(&gradient)
    }));
    let text = match result {
        Ok(Ok(found)) if found.len() == count => {
            for (at, tensor) in found.into_iter().enumerate() {
                let tensor = tensor.map_or(ptr::null_mut(), into_ptr);
                // SAFETY: there is room for `count` gradients.
                unsafe { *gradients.add(at) = tensor };
            }
            return true;
        }
        Ok(Ok(found)) => format!(
            "a backward function gave {} gradients; expected {count}, a gradient or `None` for each input",
            found.len()
        ),
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (_, Some(text)) => (*text).to_owned(),
            _ => "a backward function panicked".to_owned(),
        },
    };
    ERROR.with_borrow_mut(|slot| {
        *slot = CString::new(text).unwrap_or_default();
        // SAFETY: there is room for one pointer, and the text lives until this thread's next error.
        unsafe { *error = slot.as_ptr() };
    });
    false
}

/// Gives a tensor to C++, which drops it.
fn into_ptr(tensor: Tensor) -> *mut C_tensor {
    let mut tensor = std::mem::ManuallyDrop::new(tensor);
    tensor.as_mut_ptr()
}

unsafe extern "C" fn drop_state(state: *mut c_void) {
    // SAFETY: `state` is what `record_backward` made, and this is called once.
    drop(unsafe { Box::from_raw(state.cast::<Box<Backward>>()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
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
        let square = record_backward(square, &[&x, &unused], move |gradient| {
            let _ = &keeps;
            Ok(vec![Some(gradient * &value * 2.0), None])
        })
        .unwrap();
        assert_eq!(Arc::strong_count(&held), 2);
        let loss = &square * 5.0;
        loss.backward();
        assert_eq!(x.grad().double_value(&[0]), 30.0);
        assert!(!unused.grad().defined());
        // Freed after the backward pass, as libtorch frees its own nodes; a second backward pass is an error.
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(loss.f_backward().is_err());
    }

    #[test]
    fn nothing_is_recorded_under_no_grad() {
        let held = Arc::new(());
        let keeps = held.clone();
        let x = three();
        let y = tch::no_grad(|| {
            record_backward(x.detach(), &[&x], move |_| {
                let _ = &keeps;
                Ok(vec![None])
            })
        })
        .unwrap();
        assert!(!y.requires_grad());
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn an_error_or_a_panic_in_the_backward_pass_is_an_error_with_the_same_text() {
        let x = three();
        let text = |backward: fn(&Tensor) -> Result<Gradients>| {
            let y = record_backward(x.detach(), &[&x], backward).unwrap();
            y.f_backward().unwrap_err().to_string()
        };
        let error = text(|_| bail!("no gradient today"));
        assert!(error.contains("no gradient today"), "{error}");
        let error = text(|gradient| {
            assert_eq!(gradient.numel(), 7, "seven of them");
            Ok(vec![None])
        });
        assert!(error.contains("seven of them"), "{error}");
        let error = text(|_| Ok(vec![None, None]));
        assert!(
            error.contains("gave 2 gradients; expected 1, a gradient or `None` for each input"),
            "{error}"
        );
    }
}
