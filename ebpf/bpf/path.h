/* Paths without bpf_d_path, which tracepoints may not call: a walk from the leaf up to the process's root, across mounts, as d_path
 * does it. The components are written in that order, each ended by NUL; user space turns them round. What is too long is cut and
 * marked, and keeps both ends: after PATH_CAP bytes each further component overwrites the one before, so that the top one is left. */
#pragma once

#include "maps.h"

#define WALK_STEPS 4096 /* more than components fit into PATH_CAP bytes, and room for those beyond */
#define PATH_MASK 0x7fff

enum walk_end { WALK_ON = 0, WALK_ROOT = 1, WALK_UNREACHABLE = 2, WALK_ALONE = 3 };

/* What user space wants to hear of: each is a directory, with all below it, or a file. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct watched_key);
	__type(value, u32);
} watched_files SEC(".maps");

struct walk {
	struct dentry *dentry;
	struct vfsmount *vfsmount;
	struct dentry *root;
	struct vfsmount *root_mount;
	u8 *out;
	u32 start;
	u32 at;
	u32 last; /* length of a component that stands beyond the cap */
	u32 end;
	bool watch; /* look whether it lies in what is watched */
	bool inside;
};

static __always_inline bool is_watched(struct dentry *dentry)
{
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);
	struct watched_key key = {};

	if (!inode)
		return false;
	key.inode = BPF_CORE_READ(inode, i_ino);
	key.device = BPF_CORE_READ(inode, i_sb, s_dev);
	return bpf_map_lookup_elem(&watched_files, &key);
}

static long walk_step(u32 index, void *context)
{
	struct walk *walk = context;
	struct dentry *dentry = walk->dentry, *parent;
	struct vfsmount *vfsmount = walk->vfsmount;
	const unsigned char *name;
	u32 at = walk->at;
	long n;

	if (walk->watch && !walk->inside)
		walk->inside = is_watched(dentry);
	if (dentry == walk->root && vfsmount == walk->root_mount) {
		walk->end = WALK_ROOT;
		return 1;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	if (dentry == BPF_CORE_READ(vfsmount, mnt_root)) {
		struct mount *mount = (void *)vfsmount - bpf_core_field_offset(struct mount, mnt);
		struct mount *above = BPF_CORE_READ(mount, mnt_parent);

		if (above == mount) {
			walk->end = WALK_UNREACHABLE;
			return 1;
		}
		walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		walk->vfsmount = (void *)above + bpf_core_field_offset(struct mount, mnt);
		return 0;
	}
	name = BPF_CORE_READ(dentry, d_name.name);
	opaque(at);
	if (at > PATH_MASK) {
		walk->end = WALK_UNREACHABLE;
		return 1;
	}
	n = bpf_probe_read_kernel_str(walk->out + at, NAME_CAP, name);
	if (n < 0)
		n = 0;
	if (at - walk->start >= PATH_CAP)
		walk->last = n;
	else
		walk->at = at + n;
	if (dentry == parent) { /* a file of no directory: memfd, or a pipe */
		walk->end = WALK_ALONE;
		return 1;
	}
	walk->dentry = parent;
	return 0;
}

/* The same, and whether the path lies in what is watched; one that couldn't be walked to its end does. */
static __always_inline u32 write_watched(u8 *out, u32 at, struct dentry *dentry, struct vfsmount *mount, struct fs_struct *fs,
					 u32 *flags, bool *inside)
{
	struct walk walk = {
		.dentry = dentry,
		.vfsmount = mount,
		.root = BPF_CORE_READ(fs, root.dentry),
		.root_mount = BPF_CORE_READ(fs, root.mnt),
		.out = out,
		.start = at,
		.at = at,
		.watch = true,
	};

	bpf_loop(WALK_STEPS, walk_step, &walk, 0);
	if (walk.last || walk.end == WALK_ON)
		*flags |= FILE_CUT;
	if (walk.end == WALK_UNREACHABLE || walk.end == WALK_ALONE)
		*flags |= FILE_UNREACHABLE;
	if (walk.inside || walk.end == WALK_ON)
		*inside = true;
	return walk.at + walk.last;
}

/* Writes the components of `path` at out + at; gives where they end. */
static __always_inline u32 write_path(u8 *out, u32 at, struct dentry *dentry, struct vfsmount *mount, struct fs_struct *fs,
				      u32 *flags, u32 cut_flag)
{
	struct walk walk = {
		.dentry = dentry,
		.vfsmount = mount,
		.root = BPF_CORE_READ(fs, root.dentry),
		.root_mount = BPF_CORE_READ(fs, root.mnt),
		.out = out,
		.start = at,
		.at = at,
	};

	bpf_loop(WALK_STEPS, walk_step, &walk, 0);
	if (walk.last || walk.end == WALK_ON)
		*flags |= cut_flag;
	if (walk.end == WALK_UNREACHABLE || walk.end == WALK_ALONE)
		*flags |= EXEC_UNREACHABLE;
	if (walk.end == WALK_ALONE)
		*flags |= EXEC_MEMFD;
	return walk.at + walk.last;
}
