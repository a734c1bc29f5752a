//! Requests that open or change something: what they are about, and what must be allowed for them.

use super::super::path::Path;
use super::super::sftp_packet::{Attrs, Request, open};
use super::super::{Right, Says, Wanted, cut, octal};
use super::{Next, Sftp, Then};
use custody_core::event::ByteString;
use custody_core::event::file::{self, Attributes, Flag, Operation, Protocol};

/// How much of a path is told as it was written, in bytes.
const ASKED_BYTES_MAX: usize = 1_024;

impl Sftp {
    /// A request that opens or changes something.
    pub(super) fn wanting(&self, count: usize, id: u32, request: Request<'_>) -> Next {
        let home = self.requests.home.as_deref();
        let name = |path: &[u8]| Path::new(home, path);
        // A handle that isn't followed stands for a path that isn't known. So does any once requests aren't: the answer that
        // gave it may have been another one's.
        let of_handle = |handle: &[u8]| {
            let followed = (!self.requests.overflowed).then_some(&self.requests.handles);
            let id = followed.and_then(|handles| handles.get(handle));
            let opened = id.and_then(|id| self.requests.opened.get(id));
            opened.map_or(Path { bytes: Vec::new(), relative: true }, |opened| Path {
                bytes: opened.touched.about.path.as_bytes().to_vec(),
                relative: opened.touched.about.relative,
            })
        };
        let write = |path: &Path| (Right::Write, path.clone());
        let mut opens = false;
        let mut said = Said::default();
        let (operation, path, rights) = match request {
            Request::Open { path: asked, flags, attrs, .. } => {
                opens = true;
                said.asked = asked;
                // Servers look at them only where a file is made; clients send what they like.
                said.attrs = if flags & open::CREATE != 0 { attrs } else { Attrs::default() };
                said.flags = flags_of(flags);
                let path = name(asked);
                // A file that is made or emptied is written, whatever else is said. And one that isn't opened to write is opened
                // to read: OpenSSH takes what says neither, or only that it is to be made, for reading.
                let changes = open::WRITE | open::APPEND | open::CREATE | open::TRUNCATE;
                let read = flags & open::READ != 0 || flags & open::WRITE == 0;
                let written = flags & changes != 0;
                let rights = [(read, Right::Read), (written, Right::Write)];
                let rights =
                    rights.iter().filter(|(is, _)| *is).map(|(_, right)| (*right, path.clone())).collect();
                let operation = match (read, written) {
                    (true, true) => Operation::ReadWrite,
                    (true, false) => Operation::Read,
                    (false, _) => Operation::Write,
                };
                (operation, path, rights)
            }
            Request::OpenDir { path: asked, .. } => {
                opens = true;
                said.asked = asked;
                let path = name(asked);
                (Operation::List, path.clone(), vec![(Right::Read, path)])
            }
            Request::SetAttributes { path: asked, attrs, .. } => {
                said.asked = asked;
                said.attrs = attrs;
                let path = name(asked);
                (Operation::SetAttributes, path.clone(), vec![write(&path)])
            }
            Request::SetAttributesOf { handle, attrs, .. } => {
                said.attrs = attrs;
                let path = of_handle(handle);
                (Operation::SetAttributes, path.clone(), vec![write(&path)])
            }
            Request::MakeDir { path: asked, attrs, .. } => {
                said.asked = asked;
                said.attrs = attrs;
                let path = name(asked);
                (Operation::Mkdir, path.clone(), vec![write(&path)])
            }
            Request::Remove { path: asked, .. } => {
                said.asked = asked;
                let path = name(asked);
                (Operation::Remove, path.clone(), vec![write(&path)])
            }
            Request::RemoveDir { path: asked, .. } => {
                said.asked = asked;
                let path = name(asked);
                (Operation::Rmdir, path.clone(), vec![write(&path)])
            }
            Request::Rename { from, to, .. } | Request::Hardlink { from, to, .. } => {
                said.asked = from;
                let (path, to) = (name(from), name(to));
                let operation = match request {
                    Request::Rename { .. } => Operation::Rename,
                    _ => Operation::Hardlink,
                };
                let rights = vec![write(&path), write(&to)];
                said.to = Some(to.bytes);
                (operation, path, rights)
            }
            Request::Symlink { leads_to, link, .. } => {
                said.asked = link;
                said.to = Some(leads_to.to_vec());
                let path = name(link);
                // Who may write by a link what it leads to must be allowed to write just that.
                let rights = vec![write(&path), write(&Path::behind(&path, leads_to))];
                (Operation::Symlink, path, rights)
            }
            Request::Copy { from, to, .. } => {
                let (path, to) = (of_handle(from), of_handle(to));
                let rights = vec![(Right::Read, path.clone()), write(&to)];
                said.to = Some(to.bytes);
                (Operation::Copy, path, rights)
            }
            // None of the others comes here.
            _ => return Next::Passes(count),
        };
        let requested = Box::new(said.requested(self.channel, operation, &path));
        let then =
            if opens { Then::Open(id, requested.clone()) } else { Then::Change(id, requested.clone()) };
        Next::Wants(count, Box::new((Wanted { says: Says::Requested(requested), rights }, then)))
    }
}

/// What a request says besides its path.
#[derive(Default)]
struct Said<'a> {
    asked: &'a [u8],
    attrs: Attrs,
    flags: Vec<Flag>,
    to: Option<Vec<u8>>,
}

impl Said<'_> {
    fn requested(self, channel: u32, operation: Operation, path: &Path) -> file::Requested {
        let Attrs { size, owner, mode, times } = self.attrs;
        let asked = (self.asked != path.bytes && !self.asked.is_empty())
            .then(|| ByteString::cut(self.asked, ASKED_BYTES_MAX));
        let (name, path_bytes) = cut(&path.bytes);
        let (to, to_bytes) = self.to.map(|to| cut(&to)).unzip();
        file::Requested {
            asked,
            attributes: Attributes {
                accessed: times.map(|(accessed, _)| accessed),
                gid: owner.map(|(_, gid)| gid),
                mode: mode.map(octal),
                modified: times.map(|(_, modified)| modified),
                size,
                uid: owner.map(|(uid, _)| uid),
            },
            channel,
            flags: self.flags,
            operation,
            path: name,
            path_bytes,
            protocol: Protocol::Sftp,
            relative: path.relative,
            to,
            to_bytes: to_bytes.flatten(),
        }
    }
}

fn flags_of(flags: u32) -> Vec<Flag> {
    let all = [
        (open::APPEND, Flag::Append),
        (open::CREATE, Flag::Create),
        (open::TRUNCATE, Flag::Truncate),
        (open::EXCLUSIVE, Flag::Exclusive),
    ];
    all.into_iter().filter(|(bit, _)| flags & bit != 0).map(|(_, flag)| flag).collect()
}
