//! The environment variable `OPS_IMPLEMENTATION`, in processes of their own, because it is read once.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use ops::{Activation, Implementation, conv3x3};
use tch::{Device, Kind, Tensor};

/// Set in the processes that the tests start.
const CHILD: &str = "OPS_TEST_CHILD";

/// Runs `child` below with this value of the variable, and gives what it wrote.
fn run(value: Option<&str>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]);
    command.env(CHILD, "1");
    match value {
        Some(value) => command.env("OPS_IMPLEMENTATION", value),
        None => command.env_remove("OPS_IMPLEMENTATION"),
    };
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// What the other tests start in a process; elsewhere it tests nothing.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    match Implementation::selected() {
        Ok(implementation) => println!("selected {implementation}"),
        Err(error) => println!("selected nothing: {error}"),
    }
    let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
    let (x, kernel) = (ones(&[1, 3, 3, 16]), ones(&[16, 3, 3, 16]));
    match conv3x3(&x, &kernel, &ones(&[16]), Activation::Linear) {
        Ok(y) => println!("computed {}", y.double_value(&[0, 1, 1, 0])),
        Err(error) => println!("computed nothing: {error}"),
    }
}

#[test]
fn each_available_implementation_can_be_selected() {
    for implementation in Implementation::available() {
        let text = run(Some(&implementation.to_string()));
        assert!(text.contains(&format!("selected {implementation}\n")));
        assert!(text.contains("computed 145\n"), "{text}");
    }
}

#[test]
fn without_the_variable_the_fastest_is_selected() {
    let text = run(None);
    let fastest = Implementation::available()[0];
    assert!(text.contains(&format!("selected {fastest}\n")), "{text}");
}

#[test]
fn an_unknown_value_is_an_error_of_each_operation() {
    let text = run(Some("fast"));
    assert!(text.contains("selected nothing: OPS_IMPLEMENTATION is `fast`"));
    assert!(text.contains("computed nothing: OPS_IMPLEMENTATION is `fast`"));
}
