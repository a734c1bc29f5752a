//! Names of files as the proxy knows them: made absolute where it can, `.` and `..` resolved by their names.
//!
//! Symbolic links aren't followed: only the target knows them. So a path in an event or a policy is the name that was
//! asked for, not always the file that it led to. Where a link decides which name it is (`link/../x`), or a later rename
//! does (a link that leads to a relative place), the path isn't taken for absolute, though it is written as if it were:
//! a `forbid` by its name still fits, a `permit` that asks for `context.absolute` doesn't.

/// A path as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether only the target knows which name it is: it counts from a directory that isn't known, or would if what
    /// stands in it were a link.
    pub relative: bool,
}

impl Path {
    /// `path` as it counts from the directory `from`, where that is known (and then absolute).
    pub fn new(from: Option<&[u8]>, path: &[u8]) -> Self {
        let from = if path.starts_with(b"/") { Some(&b""[..]) } else { from };
        match from {
            Some(from) => Self { bytes: resolved(from, path), relative: climbs(path) },
            None => Self { bytes: path.to_vec(), relative: true },
        }
    }

    /// Where a link leads that stands in `link`'s place. To a relative one only for as long as it stands there: when it
    /// gets another name, or a directory above it does, it leads elsewhere, and nobody sees that in the rename.
    pub fn behind(link: &Self, leads_to: &[u8]) -> Self {
        let folder = link.bytes.starts_with(b"/").then(|| parent(&link.bytes));
        let place = Self::new(folder, leads_to);
        Self { relative: place.relative || !leads_to.starts_with(b"/"), ..place }
    }
}

/// The directory that an absolute path stands in.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
    path.get(..slash).unwrap_or_default()
}

/// The last name of a path.
pub(super) fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// Whether `..` stands behind a name: if that is a link, it leads to the directory above what the link leads to.
fn climbs(path: &[u8]) -> bool {
    let names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.skip_while(|name| *name == b"..").any(|name| name == b"..")
}

/// An absolute path of at most as many bytes as both parts and a slash have.
fn resolved(from: &[u8], path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in from.split(|byte| *byte == b'/').chain(path.split(|byte| *byte == b'/')) {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    let mut out = Vec::with_capacity(from.len() + path.len() + 1);
    for name in &names {
        out.push(b'/');
        out.extend_from_slice(name);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_absolute_where_that_is_known() {
        let table: &[(Option<&str>, &str, &str, bool)] = &[
            (None, "/a/b", "/a/b", false),
            (None, "/a/./b//c/d", "/a/b/c/d", false),
            (None, "/a/./b//c/../d", "/a/b/d", true),
            (None, "/a/..", "/", true),
            (None, "/../../etc/passwd", "/etc/passwd", false),
            (None, "/.././../etc/passwd", "/etc/passwd", false),
            (None, "a/../b", "a/../b", true),
            (Some("/root"), "a b", "/root/a b", false),
            (Some("/root"), "../etc", "/etc", false),
            (Some("/root"), "../etc/../x", "/x", true),
            (Some("/root"), "..a/b..", "/root/..a/b..", false),
            (Some("/root"), "", "/root", false),
            (Some("/root"), "/", "/", false),
            (Some("/"), "..", "/", false),
            (Some("/root"), "~/x", "/root/~/x", false),
        ];
        for (from, path, bytes, relative) in table {
            let named = Path::new(from.map(str::as_bytes), path.as_bytes());
            assert_eq!((named.bytes.as_slice(), named.relative), (bytes.as_bytes(), *relative), "{path}");
        }
    }

    #[test]
    fn where_a_link_leads_is_known_for_good_only_if_it_is_absolute() {
        let link = Path::new(None, b"/srv/www/link");
        let table: &[(&[u8], &[u8], bool)] = &[
            (b"/etc/passwd", b"/etc/passwd", false),
            (b"/srv/link/../data", b"/srv/data", true),
            (b"../data", b"/srv/data", true),
            (b"data", b"/srv/www/data", true),
        ];
        for (leads_to, bytes, relative) in table {
            let behind = Path::behind(&link, leads_to);
            assert_eq!((behind.bytes.as_slice(), behind.relative), (*bytes, *relative), "{leads_to:?}");
        }
        assert!(Path::behind(&Path::new(None, b"link"), b"x").relative);
        // A name that isn't sure is still the one that a `forbid` is about.
        let unsure = Path::new(None, b"/srv/www/a/../link");
        assert_eq!(Path::behind(&unsure, b"../../etc/shadow").bytes, b"/etc/shadow");
    }

    #[test]
    fn a_path_has_a_last_name_and_what_it_stands_in() {
        assert_eq!(last(b"/srv/www"), b"www");
        assert_eq!(parent(b"/srv/www"), b"/srv");
    }
}
