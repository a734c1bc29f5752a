//! Answers and handles that are longer than most.

use super::*;

/// Some servers say a whole directory at once.
#[test]
fn a_directory_in_one_long_answer_is_followed() {
    let mut channel = Channel::new();
    channel.begin();
    channel.both(&named(kind::OPENDIR, 1, &["/srv"]), &handle(1, b"d"));
    let name = "x".repeat(1_000);
    let long = names(2, &vec![name.as_str(); 300]);
    assert!(long.len() > 300_000);
    channel.client(&ask(kind::READDIR, 2, &[&string(b"d")]));
    for piece in long.chunks(32 << 10) {
        channel.target(piece);
    }
    assert!(channel.to_client.ends_with(&long));
    channel.both(&close(3, b"d"), &status(3, 0, ""));
    assert!(channel.ended.is_none());
    assert!(channel.to_target.ends_with(&close(3, b"d")));
    assert_eq!(channel.completed().entries, Some(300));
}

/// The draft allows 256 bytes.
#[test]
fn a_long_handle_stands_for_its_file() {
    let long = [7; 300];
    let mut channel = Channel::new();
    channel.begin();
    channel.both(&open_file(1, "/from", open::READ), &handle(1, &long));
    channel.both(&read(2, &long, 0, 3), &data(2, b"abc"));
    channel.both(&close(3, &long), &status(3, 0, ""));
    let completed = channel.completed();
    assert_eq!(
        (completed.path.to_text().as_str(), completed.read.unwrap().sha256),
        ("/from", sha256(b"abc"))
    );
    channel.both(&open_file(4, "/to", open::WRITE), &handle(4, &long));
    channel.both(&write(5, &long, 0, b"def"), &status(5, 0, ""));
    channel.both(&close(6, &long), &status(6, 0, ""));
    assert_eq!(channel.completed().written.unwrap().sha256, sha256(b"def"));
    assert!(channel.ended.is_none());
}

#[test]
fn long_handles_are_bounded_by_their_bytes() {
    let long = |n: u32| [n.to_be_bytes().to_vec(), vec![7; packet::HANDLE_BYTES_MAX - 4]].concat();
    let most = requests::HANDLES_BYTES_MAX / packet::HANDLE_BYTES_MAX;
    let mut channel = Channel::new();
    channel.begin();
    for n in 0..1_000 {
        channel.both(&open_file(n + 1, "/a", open::READ), &handle(n + 1, &long(n)));
    }
    assert_eq!(channel.sftp.requests.opened.len(), most);
    assert_eq!(channel.told().len(), 1_000 - most);
    // One that is closed makes room for another, and one that is given away again for itself.
    channel.both(&close(2_000, &long(0)), &status(2_000, 0, ""));
    for id in [2_001, 2_002] {
        channel.both(&open_file(id, "/b", open::READ), &handle(id, &long(5_000)));
        assert_eq!(channel.sftp.requests.opened.len(), most);
    }
    let told = channel.told();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(channel.sftp.end().len(), most);
}
