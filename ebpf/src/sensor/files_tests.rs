//! Where paths lead, and what the kernel is told of it.

use super::{AllowList, Entries, FileRules, Found, Mount, PathRule, Said, mount, mounted_below};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

fn deny(id: u32, path: &Path) -> PathRule {
    PathRule { id, path: path.to_owned() }
}

fn compiled(rules: &FileRules) -> Entries {
    Entries::compile(rules, &Found::look(rules.paths()))
}

#[test]
fn a_path_is_its_file_and_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link, none) =
        (folder.path().join("real"), folder.path().join("link"), folder.path().join("none"));
    std::fs::File::create(&real).unwrap();
    symlink(&real, &link).unwrap();
    let rules = FileRules { denied_programs: vec![deny(1, &link), deny(2, &none)], ..FileRules::default() };
    let entries = compiled(&rules);
    let inode = std::fs::metadata(&real).unwrap().ino();
    let files: Vec<_> = entries.files.iter().map(|(file, said)| (file.inode, said.program)).collect();
    assert_eq!(files, [(inode, 1)]);
    let names: Vec<_> =
        entries.names.iter().map(|((_, name), said)| (name.as_slice(), said.program)).collect();
    assert_eq!(names, [(&b"link"[..], 1), (b"none", 2), (b"real", 1)]);
    let directory = std::fs::metadata(folder.path()).unwrap().ino();
    assert!(entries.names.keys().all(|(above, _)| above.inode == directory));
    assert!(entries.of_scripts);
    let program = std::env::current_exe().unwrap();
    let elf = FileRules { denied_programs: vec![deny(1, &program)], ..FileRules::default() };
    assert!(!compiled(&elf).of_scripts);
}

#[test]
fn rules_of_one_file_stand_together_and_what_was_denied_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::File::create(&file).unwrap();
    let list =
        |id: u32, paths: &[&Path]| AllowList { id, paths: paths.iter().map(|path| path.into()).collect() };
    let rules = FileRules {
        denied_programs: vec![deny(1, &file), deny(2, &file)],
        denied_paths: vec![deny(3, &file)],
        allowed_programs: vec![list(4, &[]), list(5, &[&file, folder.path()])],
    };
    let before = compiled(&rules);
    let said: Vec<_> = before.files.values().copied().collect();
    assert!(said.contains(&Said { program: 1, path: 3, lists: 2 }), "{said:?}");
    assert!(said.contains(&Said { program: 0, path: 0, lists: 2 }), "{said:?}");
    assert_eq!(rules.lists(), 3);

    std::fs::rename(&file, folder.path().join("other")).unwrap();
    let fewer = FileRules { denied_paths: Vec::new(), ..rules.clone() };
    let mut after = compiled(&fewer);
    after.keep_denied(&before.files, &fewer);
    let said: Vec<_> = after.files.values().filter(|said| said.program != 0).copied().collect();
    assert_eq!(said, [Said { program: 1, path: 0, lists: 0 }], "what allowed it is gone");
}

#[test]
fn paths_are_absolute_and_lists_few() {
    assert!(
        FileRules { denied_paths: vec![deny(1, Path::new("etc"))], ..FileRules::default() }.check().is_err()
    );
    let lists = vec![AllowList { id: 1, paths: Vec::new() }; 17];
    assert!(FileRules { allowed_programs: lists, ..FileRules::default() }.check().is_err());
}

/// Else who mounts it once more in a namespace of his own is at what lies there.
#[test]
fn what_is_mounted_below_a_directory_alone_is_below_it_wherever_else() {
    let lines = [
        "22 1 8:1 / / rw - ext4 /dev/a rw",
        "30 22 8:2 / /srv/secret/disk rw shared:1 - ext4 /dev/b rw",
        "31 30 8:3 / /srv/secret/with\\040blank rw - xfs /dev/c rw",
        "32 22 8:1 /usr /srv/secret/jail/usr ro - ext4 /dev/a rw",
        "33 22 8:4 / /srv/secrets rw - ext4 /dev/d rw",
        "34 22 8:5 / /srv/secret/twice rw - ext4 /dev/e rw",
        "35 22 8:5 / /srv/twice rw - ext4 /dev/e rw",
        "no mount",
    ];
    let mounts: Vec<_> = lines.iter().filter_map(|line| mount(line.as_bytes())).collect();
    assert_eq!(mounts.len(), 7);
    let Mount { id, device, point } = &mounts[1];
    assert_eq!((*id, *device, point.as_path()), (30, 8 << 20 | 2, Path::new("/srv/secret/disk")));
    let below = mounted_below(Path::new("/srv/secret"), &mounts);
    assert_eq!(below, [Path::new("/srv/secret/disk"), Path::new("/srv/secret/with blank")]);
    assert!(mounted_below(Path::new("/srv/secret/disk"), &mounts).is_empty());
}
