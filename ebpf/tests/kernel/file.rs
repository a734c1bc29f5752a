//! Files: in the tier of LSM hooks. The other says that it can't.

use crate::node::{Node, Session, options};
use custody_node::sensor::{FileEvent, Record};
use std::path::Path;

/// A node that watches a folder, if it can watch any.
fn watching(folder: &Path) -> Option<(Node, Session)> {
    let mut options = options();
    options.watched = vec![folder.to_owned(), folder.join("isn't there")];
    let mut node = Node::with(options);
    let session = node.session();
    ["file open", "file rename", "file delete", "file permissions"]
        .iter()
        .all(|feature| node.has(feature))
        .then_some((node, session))
}

fn opened<'a>(records: &'a [Record], path: &Path) -> Vec<&'a FileEvent> {
    let of = |record: &'a Record| match record {
        Record::FileOpened(event) if event.path == path.as_os_str().as_encoded_bytes() => Some(event),
        _ => None,
    };
    records.iter().filter_map(of).collect()
}

#[test]
fn the_same_file_opened_again_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let Some((mut node, mut session)) = watching(folder.path()) else { return };
    let at = folder.path().display();
    session.python(&format!(
        "for i in range(1000): open('{at}/same', 'a').close()\n\
         for i in range(20): open('{at}/%d' % i, 'w').close()\n\
         open('/tmp/elsewhere', 'w').close()"
    ));
    let same = folder.path().join("same");
    let total = |records: &[Record]| opened(records, &same).iter().map(|event| event.count).sum::<u64>();
    node.wait_until("a thousand", |records| (total(records) == 1000).then_some(()));
    assert!(opened(&node.records, &same).len() <= 3);
    let events = opened(&node.records, &same);
    let stat = std::fs::metadata(&same).unwrap();
    assert!(
        events.iter().all(|event| event.inode == std::os::unix::fs::MetadataExt::ino(&stat)
            && event.who.session == session.id)
    );
    assert!(opened(&node.records, Path::new("/tmp/elsewhere")).is_empty());
    for number in 0..20 {
        assert_eq!(opened(&node.records, &folder.path().join(number.to_string())).len(), 1);
    }
}

#[test]
fn every_way_to_a_watched_file_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let Some((mut node, mut session)) = watching(folder.path()) else { return };
    let (at, elsewhere) = (folder.path().display(), other.path().display());
    session.python(&format!(
        "import os, subprocess\n\
         open('{at}/target', 'w').close()\n\
         os.symlink('{at}/target', '{elsewhere}/link'); open('{elsewhere}/link').close()\n\
         os.mkdir('{elsewhere}/bound')\n\
         subprocess.run(['unshare', '-m', 'sh', '-c', 'mount --bind {at} {elsewhere}/bound; : <{elsewhere}/bound/target'])\n\
         os.chdir('{at}')\n\
         for i in range(60): os.mkdir('d'); os.chdir('d')\n\
         open('deep', 'w').close()\n\
         os.link('{at}/target', '{elsewhere}/second')\n\
         os.rename('deep', '{elsewhere}/out'); os.chmod('{at}/target', 0o600); os.unlink('{at}/target')"
    ));
    let target = folder.path().join("target");
    node.wait_for("the deletion", |record| {
        matches!(record, Record::FileDeleted(event) if event.path == target.as_os_str().as_encoded_bytes())
    });
    assert_eq!(
        opened(&node.records, &target).iter().filter(|event| event.mode & 3 == 0).count(),
        1,
        "by the link"
    );
    assert_eq!(opened(&node.records, &other.path().join("bound/target")).len(), 1, "by the bind mount");
    let deep = folder.path().join("d/".repeat(60)).join("deep");
    assert_eq!(opened(&node.records, &deep).len(), 1);
    node.wait_for("the rename", |record| {
        matches!(record, Record::FileRenamed(event) if event.path == deep.as_os_str().as_encoded_bytes()
            && event.renamed_to.as_deref() == Some(other.path().join("out").as_os_str().as_encoded_bytes()))
    });
    node.wait_for(
        "the permissions",
        |record| matches!(record, Record::FileModeChanged(event) if event.mode & 0o777 == 0o600),
    );
}

#[test]
fn a_session_cannot_take_the_programs_away() {
    let mut node = Node::start();
    let mut session = node.session();
    if !node.has("file delete") || !node.has("unmount deny") {
        return;
    }
    let pins = node.options.pins.display().to_string();
    session.run(&format!("rm -rf {pins}; mount -t tmpfs none {pins}; umount -l /sys; umount /sys/fs/bpf"));
    node.wait_for("the refusal", |record| matches!(record, Record::FileDeleted(event) if event.refused));
    let refused = |records: &[Record]| {
        records
            .iter()
            .filter(|record| matches!(record, Record::Mounted(event) if event.unmount_refused))
            .count()
    };
    node.wait_until("all refusals", |records| (refused(records) == 3).then_some(()));
    node.wait_for("the refusal", |record| matches!(record, Record::Mounted(event) if event.unmount_refused));
    session.run("/bin/echo still");
    node.wait_for("echo", |record| matches!(record, Record::Executed(executed) if executed.args.last().is_some_and(|arg| arg == b"still")));
}
