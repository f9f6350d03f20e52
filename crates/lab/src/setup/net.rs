//! The loopback network, which kernels and Jupyter talk over.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::setup::python;
use kernel::machine::layout::Layout;
use kernel::machine::tools;

/// In a fresh network namespace (`unshare -n`) even 127.0.0.1 is down, and evcxr offers no other
/// transport than TCP that Jupyter's clients understand. Brings it up if we may; where it is up,
/// as it nearly always is, this does nothing.
pub fn loopback_up(layout: &Layout) -> Result<()> {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    match TcpStream::connect_timeout(&nobody, Duration::from_secs(2)) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NetworkUnreachable
                    | ErrorKind::HostUnreachable
                    | ErrorKind::AddrNotAvailable
                    | ErrorKind::TimedOut
            ) => {}
        _ => return Ok(()),
    }
    // Linux: SIOCSIFFLAGS with IFF_UP | IFF_LOOPBACK | IFF_RUNNING. Python's ioctl spares us both
    // unsafe code and a dependence on the `ip` program.
    let up = "import fcntl, socket, struct\n\
              fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sH14x', b'lo', 0x49))";
    let mut command: Command = python::command(layout);
    tools::output(command.args(["-c", up]))
        .map(drop)
        .context("the loopback network 127.0.0.1 is down and could not be brought up: run `ip link set lo up` as an administrator")
}
