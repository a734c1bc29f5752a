//! Names of files as the proxy knows them: made absolute where it can, `.` and `..` resolved by their names.
//!
//! Symbolic links aren't followed: only the target knows them. So a path in an event or a policy is the name that was
//! asked for, not always the file that it led to.

/// A path as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether it counts from a directory that isn't known.
    pub relative: bool,
}

impl Path {
    /// `path` as it counts from the directory `from`, where that is known (and then absolute).
    pub fn new(from: Option<&[u8]>, path: &[u8]) -> Self {
        let from = if path.starts_with(b"/") { Some(&b""[..]) } else { from };
        match from {
            Some(from) => Self { bytes: resolved(from, path), relative: false },
            None => Self { bytes: path.to_vec(), relative: true },
        }
    }

    /// Where a link leads that stands in `link`'s place.
    pub fn behind(link: &Self, leads_to: &[u8]) -> Self {
        let folder = (!link.relative).then(|| parent(&link.bytes));
        Self::new(folder, leads_to)
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
            (None, "/a/./b//c/../d", "/a/b/d", false),
            (None, "/../../etc/passwd", "/etc/passwd", false),
            (None, "a/../b", "a/../b", true),
            (Some("/root"), "a b", "/root/a b", false),
            (Some("/root"), "../etc", "/etc", false),
            (Some("/root"), "", "/root", false),
            (Some("/root"), "/", "/", false),
            (Some("/"), "..", "/", false),
            (Some("/root"), "~/x", "/root/~/x", false),
        ];
        for (from, path, bytes, relative) in table {
            let named = Path::new(from.map(str::as_bytes), path.as_bytes());
            assert_eq!((named.bytes.as_slice(), named.relative), (bytes.as_bytes(), *relative), "{path}");
        }
        let link = Path::new(None, b"/srv/www/link");
        assert_eq!(Path::behind(&link, b"../data").bytes, b"/srv/data");
        assert_eq!(Path::behind(&link, b"/etc/passwd").bytes, b"/etc/passwd");
        assert!(Path::behind(&Path::new(None, b"link"), b"x").relative);
        assert_eq!(last(b"/srv/www"), b"www");
        assert_eq!(parent(b"/srv/www"), b"/srv");
    }
}
