/* Paths without bpf_d_path, which tracepoints may not call: a walk from the leaf up to the process's root, across mounts, as d_path
 * does it. The components are written in that order, each ended by NUL; user space turns them round. What is too long is cut and
 * marked, and keeps both ends: after PATH_CAP bytes each further component overwrites the one before, so that the top one is left. */
#pragma once

#include "maps.h"

#define WALK_STEPS 4096 /* more than components fit into PATH_CAP bytes, and room for those beyond */
#define PATH_MASK 0x3fff /* more than PATH_CAP bytes and a component twice, and what else stands in front of a second path */
#define PATH_ROOM (PATH_MASK + 1 + NAME_CAP)

enum walk_end { WALK_ON = 0, WALK_ROOT = 1, WALK_UNREACHABLE = 2, WALK_ALONE = 3 };

/* The same number, of which the verifier knows nothing. */
static __always_inline u64 unknown(u64 number)
{
	u64 same = 0;

	bpf_probe_read_kernel(&same, sizeof(same), &number);
	return same;
}

/* An address of the kernel's as a number, which alone goes into a function that the verifier looks at by itself. */
static __always_inline u64 number_of(const void *pointer)
{
	return unknown((u64)pointer);
}

/* What user space wants to hear of, or keeps for itself: each is a directory, with all below it, or a file. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct watched_key);
	__type(value, u32);
} watched_files SEC(".maps");

/* From a mount's root on to where that is mounted; gives whether it is anywhere. */
static __always_inline bool leave_mount(struct dentry **at, struct vfsmount **in)
{
	struct mount *mount = (void *)*in - bpf_core_field_offset(struct mount, mnt);
	struct mount *above = BPF_CORE_READ(mount, mnt_parent);

	if (above == mount)
		return false;
	*at = BPF_CORE_READ(mount, mnt_mountpoint);
	*in = (void *)above + bpf_core_field_offset(struct mount, mnt);
	return true;
}

enum above { ABOVE_MOUNT, ABOVE_NOTHING, ABOVE_UNKNOWN };

/* From where no name leads further up within a file system on to where that is mounted. */
static __always_inline enum above go_above(struct dentry **at, struct vfsmount **in)
{
	struct dentry *dentry = *at;
	struct vfsmount *vfsmount = *in;
	struct super_block *sb = BPF_CORE_READ(dentry, d_sb);

	if (dentry != BPF_CORE_READ(sb, s_root) && !(BPF_CORE_READ(sb, s_flags) & SB_NOUSER) &&
	    (!vfsmount || dentry != BPF_CORE_READ(vfsmount, mnt_root)))
		return ABOVE_UNKNOWN; /* a file that was opened by its number, and nobody knows yet where it lies */
	return vfsmount && leave_mount(at, in) ? ABOVE_MOUNT : ABOVE_NOTHING;
}

/* The way up from a file to the process's root. */
struct way {
	struct dentry *dentry;
	struct vfsmount *vfsmount;
	struct dentry *root;
	struct vfsmount *root_mount;
	u32 end;
};

static __always_inline struct way way_from(struct dentry *dentry, struct vfsmount *mount, struct fs_struct *fs)
{
	struct way way = {
		.dentry = dentry,
		.vfsmount = mount,
		.root = BPF_CORE_READ(fs, root.dentry),
		.root_mount = BPF_CORE_READ(fs, root.mnt),
	};

	return way;
}

/* Whether the way is at a mount's root or at its end, where no name is; it goes on from where that is mounted. */
static __always_inline bool at_mount(struct way *way)
{
	struct dentry *dentry = way->dentry;
	struct vfsmount *vfsmount = way->vfsmount;

	if (dentry == way->root && vfsmount == way->root_mount) {
		way->end = WALK_ROOT;
		return true;
	}
	if (dentry != BPF_CORE_READ(vfsmount, mnt_root))
		return false;
	if (!leave_mount(&way->dentry, &way->vfsmount))
		way->end = WALK_UNREACHABLE;
	return true;
}

/* To the directory that holds it. */
static __always_inline void go_up(struct way *way)
{
	struct dentry *dentry = way->dentry, *parent = BPF_CORE_READ(dentry, d_parent);

	if (dentry == parent) /* a file of no directory: memfd, or a pipe */
		way->end = WALK_ALONE;
	way->dentry = parent;
}

struct look {
	struct dentry *dentry;
	struct vfsmount *vfsmount;
	u32 found;
	bool ended;
};

static long look_step(u32 index, void *context)
{
	struct look *look = context;
	struct dentry *dentry = look->dentry, *parent = BPF_CORE_READ(dentry, d_parent);
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);
	struct watched_key key = {};
	enum above above;
	u32 *found;

	if (inode) { /* a name that is about to be given has none */
		key.inode = BPF_CORE_READ(inode, i_ino);
		key.device = BPF_CORE_READ(inode, i_sb, s_dev);
		found = bpf_map_lookup_elem(&watched_files, &key);
		if (found) {
			look->found = *found;
			look->ended = true;
			return 1;
		}
	}
	if (dentry != parent) {
		look->dentry = parent;
		return 0;
	}
	above = go_above(&look->dentry, &look->vfsmount);
	look->ended = above == ABOVE_NOTHING;
	return above != ABOVE_MOUNT;
}

/* What user space said of the nearest directory above, or of the file itself. The way is the file system's own, whichever part of it is
 * mounted and whatever root the process has. What can't be looked at to its end counts as watched. No mount: only that file system.
 * To the verifier, too, it is a function of its own (see judge.h). */
__noinline u32 lies_in(u64 dentry, u64 mount)
{
	struct look look = {.dentry = (struct dentry *)dentry, .vfsmount = (struct vfsmount *)mount};

	bpf_loop(WALK_STEPS, look_step, &look, 0);
	return look.ended ? look.found : LIES_WATCHED;
}

struct walk {
	struct way way;
	u8 *out;
	u32 start;
	u32 at;
	u32 last; /* length of a component that stands beyond the cap */
};

static long walk_step(u32 index, void *context)
{
	struct walk *walk = context;
	struct dentry *dentry;
	const unsigned char *name;
	u32 at = walk->at;
	long n;

	if (at_mount(&walk->way))
		return walk->way.end != WALK_ON;
	dentry = walk->way.dentry;
	name = BPF_CORE_READ(dentry, d_name.name);
	opaque(at);
	if (at > PATH_MASK) {
		walk->way.end = WALK_UNREACHABLE;
		return 1;
	}
	n = bpf_probe_read_kernel_str(walk->out + at, NAME_CAP, name);
	if (n < 0)
		n = 0;
	if (at - walk->start >= PATH_CAP)
		walk->last = n;
	else
		walk->at = at + n;
	go_up(&walk->way);
	return walk->way.end != WALK_ON;
}

/* Writes the components of a path at out + at, which has room for PATH_ROOM bytes from `out` on; gives where they end. */
static __always_inline u32 write_path(u8 *out, u32 at, struct dentry *dentry, struct vfsmount *mount, struct fs_struct *fs,
				      u32 *flags, u32 cut_flag)
{
	/* Else the verifier looks at each length that the path can have by then. */
	struct walk walk = {.way = way_from(dentry, mount, fs), .out = out, .start = at, .at = unknown(at)};

	bpf_loop(WALK_STEPS, walk_step, &walk, 0);
	if (walk.last || walk.way.end == WALK_ON)
		*flags |= cut_flag;
	if (walk.way.end == WALK_UNREACHABLE || walk.way.end == WALK_ALONE)
		*flags |= EXEC_UNREACHABLE;
	if (walk.way.end == WALK_ALONE)
		*flags |= EXEC_MEMFD;
	return walk.at + walk.last;
}
