//! The packets of SFTP version 3 (draft-ietf-secsh-filexfer-02) and of OpenSSH's extensions to it (its PROTOCOL file,
//! section 4), read from bytes of others. Nothing here panics or allocates.

use crate::ssh::field::{Fields, c_string, put_string};

/// The version that is understood.
pub(super) const VERSION: u32 = 3;
/// Longest handle, in bytes. The draft (section 6.2) allows 256; some servers say more.
pub(super) const HANDLE_BYTES_MAX: usize = 4_096;
/// Longest request but a WRITE that is taken for one, in bytes: what every server must take (draft, section 3).
pub(super) const REQUEST_BYTES_MAX: usize = 34_000;
/// Longest WRITE, in bytes: OpenSSH's own limit for all packets (SFTP_MAX_MSG_LENGTH).
pub(super) const WRITE_BYTES_MAX: usize = 256 * 1024;

/// Types of packets (draft, section 3).
pub(super) mod kind {
    #![allow(missing_docs, reason = "the names are the draft's")]
    pub const INIT: u8 = 1;
    pub const VERSION: u8 = 2;
    pub const OPEN: u8 = 3;
    pub const CLOSE: u8 = 4;
    pub const READ: u8 = 5;
    pub const WRITE: u8 = 6;
    pub const LSTAT: u8 = 7;
    pub const FSTAT: u8 = 8;
    pub const SETSTAT: u8 = 9;
    pub const FSETSTAT: u8 = 10;
    pub const OPENDIR: u8 = 11;
    pub const READDIR: u8 = 12;
    pub const REMOVE: u8 = 13;
    pub const MKDIR: u8 = 14;
    pub const RMDIR: u8 = 15;
    pub const REALPATH: u8 = 16;
    pub const STAT: u8 = 17;
    pub const RENAME: u8 = 18;
    pub const READLINK: u8 = 19;
    pub const SYMLINK: u8 = 20;
    pub const STATUS: u8 = 101;
    pub const HANDLE: u8 = 102;
    pub const DATA: u8 = 103;
    pub const NAME: u8 = 104;
    pub const EXTENDED: u8 = 200;
}

/// Codes of a STATUS (draft, section 7).
pub(super) mod status {
    #![allow(missing_docs, reason = "the names are the draft's")]
    pub const OK: u32 = 0;
    pub const EOF: u32 = 1;
    pub const PERMISSION_DENIED: u32 = 3;
    pub const FAILURE: u32 = 4;
}

/// Flags of an OPEN (draft, section 6.3).
pub(super) mod open {
    #![allow(missing_docs, reason = "the names are the draft's")]
    pub const READ: u32 = 1;
    pub const WRITE: u32 = 2;
    pub const APPEND: u32 = 4;
    pub const CREATE: u32 = 8;
    pub const TRUNCATE: u32 = 16;
    pub const EXCLUSIVE: u32 = 32;
}

/// Attributes of a file (draft, section 5), as far as events tell them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attrs {
    pub size: Option<u64>,
    pub owner: Option<(u32, u32)>,
    pub mode: Option<u32>,
    /// Accessed, modified.
    pub times: Option<(u32, u32)>,
}

/// A request, from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    Init,
    Open {
        id: u32,
        path: &'a [u8],
        flags: u32,
        attrs: Attrs,
    },
    Close {
        id: u32,
        handle: &'a [u8],
    },
    Read {
        id: u32,
        handle: &'a [u8],
        offset: u64,
    },
    SetAttributes {
        id: u32,
        path: &'a [u8],
        attrs: Attrs,
    },
    SetAttributesOf {
        id: u32,
        handle: &'a [u8],
        attrs: Attrs,
    },
    OpenDir {
        id: u32,
        path: &'a [u8],
    },
    ReadDir {
        id: u32,
        handle: &'a [u8],
    },
    Remove {
        id: u32,
        path: &'a [u8],
    },
    MakeDir {
        id: u32,
        path: &'a [u8],
        attrs: Attrs,
    },
    RemoveDir {
        id: u32,
        path: &'a [u8],
    },
    RealPath {
        id: u32,
        path: &'a [u8],
    },
    Rename {
        id: u32,
        from: &'a [u8],
        to: &'a [u8],
    },
    /// As OpenSSH sends and reads it, which is the other way round than the draft.
    Symlink {
        id: u32,
        leads_to: &'a [u8],
        link: &'a [u8],
    },
    Hardlink {
        id: u32,
        from: &'a [u8],
        to: &'a [u8],
    },
    Copy {
        id: u32,
        from: &'a [u8],
        to: &'a [u8],
    },
    /// Looks at something and changes nothing.
    Look {
        id: u32,
    },
    /// Of a type that isn't known.
    UnknownType(u8),
    /// An extension that isn't known.
    UnknownExtension {
        id: u32,
        name: &'a [u8],
    },
}

/// Reads a request from the whole packet without its length; `None` if it isn't what its type says.
pub(super) fn request(packet: &[u8]) -> Option<Request<'_>> {
    let mut fields = Fields::new(packet);
    let kind = fields.byte()?;
    if kind == kind::INIT {
        return fields.uint32().map(|_| Request::Init);
    }
    let known = (kind::OPEN..=kind::SYMLINK).contains(&kind) || kind == kind::EXTENDED;
    if !known {
        return Some(Request::UnknownType(kind));
    }
    let id = fields.uint32()?;
    Some(match kind {
        kind::OPEN => {
            let path = name(&mut fields)?;
            Request::Open { id, path, flags: fields.uint32()?, attrs: attrs(&mut fields)? }
        }
        kind::CLOSE => Request::Close { id, handle: handle(&mut fields)? },
        kind::READ => {
            let handle = handle(&mut fields)?;
            let offset = fields.uint64()?;
            fields.uint32()?;
            Request::Read { id, handle, offset }
        }
        kind::SETSTAT => Request::SetAttributes { id, path: name(&mut fields)?, attrs: attrs(&mut fields)? },
        kind::FSETSTAT => {
            Request::SetAttributesOf { id, handle: handle(&mut fields)?, attrs: attrs(&mut fields)? }
        }
        kind::OPENDIR => Request::OpenDir { id, path: name(&mut fields)? },
        kind::READDIR => Request::ReadDir { id, handle: handle(&mut fields)? },
        kind::REMOVE => Request::Remove { id, path: name(&mut fields)? },
        kind::MKDIR => Request::MakeDir { id, path: name(&mut fields)?, attrs: attrs(&mut fields)? },
        kind::RMDIR => Request::RemoveDir { id, path: name(&mut fields)? },
        kind::REALPATH => Request::RealPath { id, path: name(&mut fields)? },
        kind::RENAME => Request::Rename { id, from: name(&mut fields)?, to: name(&mut fields)? },
        kind::SYMLINK => Request::Symlink { id, leads_to: name(&mut fields)?, link: name(&mut fields)? },
        kind::LSTAT | kind::STAT | kind::READLINK | kind::FSTAT => {
            fields.string()?;
            Request::Look { id }
        }
        kind::EXTENDED => return extended(id, &mut fields),
        // A WRITE is read by its head: see `write_head`.
        _ => return None,
    })
}

fn extended<'a>(id: u32, fields: &mut Fields<'a>) -> Option<Request<'a>> {
    Some(match name(fields)? {
        b"posix-rename@openssh.com" => Request::Rename { id, from: name(fields)?, to: name(fields)? },
        b"hardlink@openssh.com" => Request::Hardlink { id, from: name(fields)?, to: name(fields)? },
        b"lsetstat@openssh.com" => Request::SetAttributes { id, path: name(fields)?, attrs: attrs(fields)? },
        b"copy-data" => {
            let from = handle(fields)?;
            fields.uint64()?;
            fields.uint64()?;
            Request::Copy { id, from, to: handle(fields)? }
        }
        b"fsync@openssh.com"
        | b"statvfs@openssh.com"
        | b"fstatvfs@openssh.com"
        | b"limits@openssh.com"
        | b"expand-path@openssh.com"
        | b"home-directory"
        | b"users-groups-by-id@openssh.com" => Request::Look { id },
        name => Request::UnknownExtension { id, name },
    })
}

/// A path or the name of an extension. One with a zero byte in it is no name: servers would read different ones.
fn name<'a>(fields: &mut Fields<'a>) -> Option<&'a [u8]> {
    c_string(fields.string()?)
}

fn handle<'a>(fields: &mut Fields<'a>) -> Option<&'a [u8]> {
    fields.string().filter(|handle| handle.len() <= HANDLE_BYTES_MAX)
}

fn attrs(fields: &mut Fields<'_>) -> Option<Attrs> {
    let flags = fields.uint32()?;
    let mut attrs = Attrs::default();
    if flags & 1 != 0 {
        attrs.size = Some(fields.uint64()?);
    }
    if flags & 2 != 0 {
        attrs.owner = Some((fields.uint32()?, fields.uint32()?));
    }
    if flags & 4 != 0 {
        attrs.mode = Some(fields.uint32()?);
    }
    if flags & 8 != 0 {
        attrs.times = Some((fields.uint32()?, fields.uint32()?));
    }
    // Extended attributes say nothing that events tell.
    Some(attrs)
}

/// The head of a WRITE: all but its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WriteHead<'a> {
    pub id: u32,
    pub handle: &'a [u8],
    pub offset: u64,
    /// Bytes of data that follow.
    pub data_bytes: u32,
    /// Bytes of the packet, its length included, before the data.
    pub head_bytes: usize,
    /// Bytes of the packet behind the data, which servers pass over.
    pub behind_bytes: u32,
}

/// What the beginning of a WRITE says.
pub(super) enum Head<'a> {
    Whole(WriteHead<'a>),
    /// More of it must come.
    Short,
    /// It isn't what it says.
    Wrong,
}

/// Reads the head of a WRITE from a packet with its length, which may not be all there.
pub(super) fn write_head(bytes: &[u8]) -> Head<'_> {
    let mut fields = Fields::new(bytes);
    let (Some(length), Some(_), Some(id), Some(handle_bytes)) =
        (fields.uint32(), fields.byte(), fields.uint32(), peek(bytes, 9))
    else {
        return Head::Short;
    };
    let handle_bytes = handle_bytes as usize;
    if handle_bytes > HANDLE_BYTES_MAX {
        return Head::Wrong;
    }
    let (Some(handle), Some(offset), Some(data_bytes)) = (fields.string(), fields.uint64(), fields.uint32())
    else {
        return Head::Short;
    };
    let head_bytes = 25 + handle_bytes;
    // pkg/sftp (rclone) sends its whole buffer, whatever part of it a WRITE says are the data.
    let behind = u64::from(length) + 4;
    let behind = behind.checked_sub(head_bytes as u64 + u64::from(data_bytes));
    let Some(behind_bytes) = behind.and_then(|bytes| u32::try_from(bytes).ok()) else {
        return Head::Wrong;
    };
    Head::Whole(WriteHead { id, handle, offset, data_bytes, head_bytes, behind_bytes })
}

fn peek(bytes: &[u8], at: usize) -> Option<u32> {
    Fields::new(bytes.get(at..)?).uint32()
}

/// The answer to a request that the proxy refuses, as a packet with its length.
pub(super) fn refusal(id: u32, code: u32, text: &str) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.push(kind::STATUS);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&code.to_be_bytes());
    put_string(&mut out, text.as_bytes());
    put_string(&mut out, b"");
    let length = u32::try_from(out.len() - 4).unwrap_or_default().to_be_bytes();
    for (place, byte) in out.iter_mut().zip(length) {
        *place = byte;
    }
    out
}
