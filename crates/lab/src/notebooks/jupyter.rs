//! `lab jupyter`: JupyterLab on the notebooks, on this machine only, with a token.

use std::env;
use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use crate::setup::python;
use kernel::machine::layout::Layout;

/// Becomes JupyterLab. A port that was asked for must be free; else Jupyter takes 8888 or the next
/// free one by itself.
pub fn jupyter(layout: &Layout, port: Option<u16>) -> Result<()> {
    if let Some(port) = port {
        TcpListener::bind(("127.0.0.1", port)).map_err(|error| {
            anyhow!("port {port} cannot be used ({error}): stop what uses it, choose another with `make lab PORT={}`, or leave PORT out and Jupyter finds a free one", if port < u16::MAX { port + 1 } else { 8888 })
        })?;
    }
    let mut lab: Command = python::command(layout);
    lab.args([
        "-m",
        "jupyterlab",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port_retries=50",
    ])
    .arg(format!(
        "--ServerApp.root_dir={}",
        layout.notebooks().display()
    ))
    .args(settings())
    .env("PYTHONPATH", python_path(layout));
    let no_screen = ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER"]
        .iter()
        .all(|name| env::var_os(name).is_none());
    if cfg!(target_os = "linux") && no_screen {
        lab.arg("--no-browser");
    }
    if let Some(port) = port {
        lab.arg(format!("--ServerApp.port={port}"));
    }
    Err(lab.exec()).context("cannot start JupyterLab: run `make lab`")
}

/// What a server needs for the lesson, alone or in a class.
pub fn settings() -> [&'static str; 5] {
    [
        // A new notebook is a Rust notebook.
        "--MultiKernelManager.default_kernel_name=rust",
        // A kernel that must first compile edited crates of the lesson starts slowly, but it is not dead.
        "--MappingKernelManager.kernel_info_timeout=300",
        // So that a panel which followed a training can be kept in the notebook when the training has ended.
        "--LabApp.expose_app_in_browser=True",
        // On this machine only and with a token, it does no harm as root, which containers are.
        "--ServerApp.allow_root=True",
        // Shift-Tab within a name or a call, and a word about cells of which the kernel makes nothing.
        "--ServerApp.kernel_websocket_connection_class=lesson_server.Connection",
    ]
}

/// Python's path with the folder of that class.
pub fn python_path(layout: &Layout) -> OsString {
    let mut path = layout.root.join("crates/lab/server").into_os_string();
    if let Some(rest) = env::var_os("PYTHONPATH").filter(|rest| !rest.is_empty()) {
        path.push(":");
        path.push(rest);
    }
    path
}
