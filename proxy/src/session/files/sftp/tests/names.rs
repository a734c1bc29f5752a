//! Names of files: what is judged of them must be what they are for the target.

use super::*;

/// Who can write by a link must be allowed to write what it leads to.
#[test]
fn a_symbolic_link_needs_the_right_to_what_it_leads_to() {
    let mut channel = Channel::new();
    channel.begin();
    channel.client(&named(kind::SYMLINK, 1, &["../../etc/shadow", "/srv/www/link"]));
    let rights: Vec<_> = channel.wanted[0].rights.iter().map(|(_, path)| path.bytes.clone()).collect();
    assert_eq!(rights, [b"/srv/www/link".to_vec(), b"/etc/shadow".to_vec()]);
}

/// The paths of the last request's rights, and whether only the target knows which names they are.
fn paths(channel: &Channel) -> Vec<(String, bool)> {
    let rights = channel.wanted.last().unwrap().rights.iter();
    rights.map(|(_, path)| (String::from_utf8(path.bytes.clone()).unwrap(), path.relative)).collect()
}

/// A link that leads from a deep folder to `/srv/www/etc/passwd` leads to `/etc/passwd` once it is renamed.
#[test]
fn where_a_link_to_a_relative_place_leads_is_not_known_for_good() {
    let mut channel = Channel::new();
    channel.begin();
    channel
        .both(&named(kind::SYMLINK, 1, &["../../../../etc/passwd", "/srv/www/a/b/c/d/l"]), &status(1, 0, ""));
    let wanted = [("/srv/www/a/b/c/d/l".to_owned(), false), ("/srv/www/etc/passwd".to_owned(), true)];
    assert_eq!(paths(&channel), wanted);
    // One that only goes down leads out, too, where it gets the name of a single file that may be written.
    channel.both(&named(kind::SYMLINK, 2, &["shadow", "/srv/www/l"]), &status(2, 0, ""));
    assert_eq!(paths(&channel), [("/srv/www/l".to_owned(), false), ("/srv/www/shadow".to_owned(), true)]);
    channel.both(&named(kind::SYMLINK, 3, &["/srv/www/releases/7", "/srv/www/l"]), &status(3, 0, ""));
    let wanted = [("/srv/www/l".to_owned(), false), ("/srv/www/releases/7".to_owned(), false)];
    assert_eq!(paths(&channel), wanted);
}

/// `link/..` is the directory above the one that the link leads to.
#[test]
fn what_stands_above_a_name_that_may_be_a_link_is_not_known() {
    let mut channel = Channel::new();
    channel.begin();
    let path = "/srv/www/a/b/l/../../../etc/passwd";
    channel.both(&open_file(1, path, open::WRITE), &status(1, 3, "no"));
    assert_eq!(paths(&channel), [("/srv/www/etc/passwd".to_owned(), true)]);
    let failed = channel.failed();
    assert_eq!((failed.path.to_text().as_str(), failed.relative), ("/srv/www/etc/passwd", true));
    // From the directory that the target told upwards there is no link.
    channel.client(&open_file(2, "../srv/www/x", open::WRITE));
    assert_eq!(paths(&channel), [("/srv/www/x".to_owned(), false)]);
}

/// OpenSSH reads a name without the zero byte at its end, and nobody knows what one in the middle means.
#[test]
fn a_zero_byte_at_the_end_is_none_of_a_name() {
    let table = [
        (open_file(1, "/etc/shadow\0", open::READ), "/etc/shadow", false),
        (named(kind::OPENDIR, 1, &["/srv/www/..\0"]), "/srv", true),
        (named(kind::REMOVE, 1, &["/a/..\0"]), "/", true),
        (extended(1, "posix-rename@openssh.com\0", &["/a\0", "b\0"]), "/a", false),
    ];
    for (request, path, relative) in table {
        let mut channel = Channel::new();
        channel.begin();
        channel.client(&request);
        assert_eq!(paths(&channel)[0], (path.to_owned(), relative));
        assert_eq!(channel.requested()[0].1, path);
        assert!(channel.to_target.ends_with(&request), "it passes as it came");
    }
    for request in [
        open_file(1, "/etc/shadow\0.txt", open::READ),
        named(kind::RENAME, 1, &["/a", "/b\0c"]),
        extended(1, "posix-rename@openssh.com\0x", &["/a", "/b"]),
        named(kind::SETSTAT, 1, &["/a\0\0"]),
    ] {
        let mut channel = Channel::new();
        channel.begin();
        let before = channel.to_target.len();
        channel.client(&request);
        assert!(channel.ended.is_some() && channel.requested().is_empty());
        assert_eq!(channel.to_target.len(), before);
    }
}
