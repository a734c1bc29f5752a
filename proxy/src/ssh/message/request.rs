//! What is asked of a channel (RFC 4254, section 6, and OpenSSH's PROTOCOL).

use super::MessageError;
use super::wire::{Reader, put_string, put_u32};

/// A channel request: typed where the proxy has to understand it, carried as it is where not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// `pty-req`: a pseudo-terminal (section 6.2).
    Pty {
        /// The value of TERM.
        term: &'a [u8],
        /// Width in characters.
        columns: u32,
        /// Height in characters.
        rows: u32,
        /// Width in pixels, 0 if unknown.
        width: u32,
        /// Height in pixels, 0 if unknown.
        height: u32,
        /// Encoded terminal modes (section 8), not interpreted.
        modes: &'a [u8],
    },
    /// `x11-req`: X11 forwarding (section 6.3.1).
    X11 {
        /// Forward one connection only.
        single: bool,
        /// Name of the authentication method.
        protocol: &'a [u8],
        /// The cookie, in hexadecimal.
        cookie: Cookie<'a>,
        /// Which screen.
        screen: u32,
    },
    /// `env`: an environment variable (section 6.4).
    Env {
        /// Its name.
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// `shell`: the user's shell (section 6.5).
    Shell,
    /// `exec`: one command line (section 6.5).
    Exec {
        /// The command line, as the shell will get it.
        command: &'a [u8],
    },
    /// `subsystem`: `sftp` and the like (section 6.5).
    Subsystem {
        /// Its name.
        name: &'a [u8],
    },
    /// `window-change`: the terminal's new size (section 6.7).
    WindowChange {
        /// Width in characters.
        columns: u32,
        /// Height in characters.
        rows: u32,
        /// Width in pixels, 0 if unknown.
        width: u32,
        /// Height in pixels, 0 if unknown.
        height: u32,
    },
    /// `xon-xoff`: whether the client may handle flow control itself (section 6.8).
    XonXoff {
        /// Whether it may.
        client_can_do: bool,
    },
    /// `signal`: a signal for the remote process (section 6.9).
    Signal {
        /// Its name without `SIG`.
        name: &'a [u8],
    },
    /// `exit-status`: how the remote process ended (section 6.10).
    ExitStatus {
        /// Its exit status.
        status: u32,
    },
    /// `exit-signal`: the signal that ended the remote process (section 6.10).
    ExitSignal {
        /// Its name without `SIG`.
        name: &'a [u8],
        /// Whether a core was dumped.
        core_dumped: bool,
        /// A text for people.
        message: &'a [u8],
        /// Its language tag; nearly always empty.
        language: &'a [u8],
    },
    /// `eow@openssh.com`: the sender won't read any more (OpenSSH PROTOCOL, 2.1).
    EndOfWrite,
    /// `auth-agent-req@openssh.com`: agent forwarding (OpenSSH PROTOCOL.agent).
    AuthAgent,
    /// `keepalive@openssh.com`: is the other side alive.
    KeepAlive,
    /// Any other.
    Other {
        /// Its name.
        name: &'a [u8],
        /// What belongs to it.
        data: &'a [u8],
    },
}

/// An X11 authentication cookie: whoever has it may use the user's display, so `Debug` hides it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cookie<'a>(pub &'a [u8]);

impl std::fmt::Debug for Cookie<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cookie({} bytes)", self.0.len())
    }
}

impl<'a> Request<'a> {
    /// Reads what belongs to the request `name`.
    pub(super) fn parse(name: &'a [u8], data: &'a [u8]) -> Result<Self, MessageError> {
        Ok(match name {
            b"pty-req" => {
                let mut r = Reader::new("pty-req", data);
                let request = Request::Pty {
                    term: r.string("TERM")?,
                    columns: r.u32("columns")?,
                    rows: r.u32("rows")?,
                    width: r.u32("width")?,
                    height: r.u32("height")?,
                    modes: r.string("terminal modes")?,
                };
                r.end()?;
                request
            }
            b"x11-req" => {
                let mut r = Reader::new("x11-req", data);
                let request = Request::X11 {
                    single: r.boolean("single connection")?,
                    protocol: r.string("authentication protocol")?,
                    cookie: Cookie(r.string("authentication cookie")?),
                    screen: r.u32("screen number")?,
                };
                r.end()?;
                request
            }
            b"env" => {
                let mut r = Reader::new("env", data);
                let request = Request::Env { name: r.string("name")?, value: r.string("value")? };
                r.end()?;
                request
            }
            b"shell" => bare("shell", data, Request::Shell)?,
            b"exec" => {
                let mut r = Reader::new("exec", data);
                let request = Request::Exec { command: r.string("command")? };
                r.end()?;
                request
            }
            b"subsystem" => {
                let mut r = Reader::new("subsystem", data);
                let request = Request::Subsystem { name: r.string("name")? };
                r.end()?;
                request
            }
            b"window-change" => {
                let mut r = Reader::new("window-change", data);
                let request = Request::WindowChange {
                    columns: r.u32("columns")?,
                    rows: r.u32("rows")?,
                    width: r.u32("width")?,
                    height: r.u32("height")?,
                };
                r.end()?;
                request
            }
            b"xon-xoff" => {
                let mut r = Reader::new("xon-xoff", data);
                let request = Request::XonXoff { client_can_do: r.boolean("client can do")? };
                r.end()?;
                request
            }
            b"signal" => {
                let mut r = Reader::new("signal", data);
                let request = Request::Signal { name: r.string("name")? };
                r.end()?;
                request
            }
            b"exit-status" => {
                let mut r = Reader::new("exit-status", data);
                let request = Request::ExitStatus { status: r.u32("status")? };
                r.end()?;
                request
            }
            b"exit-signal" => {
                let mut r = Reader::new("exit-signal", data);
                let request = Request::ExitSignal {
                    name: r.string("name")?,
                    core_dumped: r.boolean("core dumped")?,
                    message: r.string("message")?,
                    language: r.string("language tag")?,
                };
                r.end()?;
                request
            }
            b"eow@openssh.com" => bare("eow@openssh.com", data, Request::EndOfWrite)?,
            b"auth-agent-req@openssh.com" => bare("auth-agent-req@openssh.com", data, Request::AuthAgent)?,
            b"keepalive@openssh.com" => bare("keepalive@openssh.com", data, Request::KeepAlive)?,
            _ => Request::Other { name, data },
        })
    }

    /// The request's name on the wire.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        match self {
            Request::Pty { .. } => b"pty-req",
            Request::X11 { .. } => b"x11-req",
            Request::Env { .. } => b"env",
            Request::Shell => b"shell",
            Request::Exec { .. } => b"exec",
            Request::Subsystem { .. } => b"subsystem",
            Request::WindowChange { .. } => b"window-change",
            Request::XonXoff { .. } => b"xon-xoff",
            Request::Signal { .. } => b"signal",
            Request::ExitStatus { .. } => b"exit-status",
            Request::ExitSignal { .. } => b"exit-signal",
            Request::EndOfWrite => b"eow@openssh.com",
            Request::AuthAgent => b"auth-agent-req@openssh.com",
            Request::KeepAlive => b"keepalive@openssh.com",
            Request::Other { name, .. } => name,
        }
    }

    /// Appends what belongs to the request, without its name.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Request::Pty { term, columns, rows, width, height, modes } => {
                put_string(out, term);
                for value in [columns, rows, width, height] {
                    put_u32(out, value);
                }
                put_string(out, modes);
            }
            Request::X11 { single, protocol, cookie, screen } => {
                out.push(u8::from(single));
                put_string(out, protocol);
                put_string(out, cookie.0);
                put_u32(out, screen);
            }
            Request::Env { name, value } => {
                put_string(out, name);
                put_string(out, value);
            }
            Request::Exec { command } => put_string(out, command),
            Request::Subsystem { name } | Request::Signal { name } => put_string(out, name),
            Request::WindowChange { columns, rows, width, height } => {
                for value in [columns, rows, width, height] {
                    put_u32(out, value);
                }
            }
            Request::XonXoff { client_can_do } => out.push(u8::from(client_can_do)),
            Request::ExitStatus { status } => put_u32(out, status),
            Request::ExitSignal { name, core_dumped, message, language } => {
                put_string(out, name);
                out.push(u8::from(core_dumped));
                put_string(out, message);
                put_string(out, language);
            }
            Request::Shell | Request::EndOfWrite | Request::AuthAgent | Request::KeepAlive => {}
            Request::Other { data, .. } => out.extend_from_slice(data),
        }
    }
}

/// A request that consists of its name alone.
fn bare<'a>(name: &'static str, data: &[u8], request: Request<'a>) -> Result<Request<'a>, MessageError> {
    Reader::new(name, data).end()?;
    Ok(request)
}
