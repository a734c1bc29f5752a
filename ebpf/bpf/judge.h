/* What a policy says of a program or a file: on the way up from it each directory is asked for, by what it is (device, inode) and by
 * its name in the one above. So neither another name (hard and symbolic links, bind mounts, chroot, other mount namespaces) nor
 * another file of the same name, nor a rename of a directory above leads around a rule.
 *
 * The way goes to the root of the file system, also above where that is mounted from, and on from where it is mounted: what denies
 * may stand anywhere there. What allows must stand within the file system of the file itself: whoever may mount could else put any
 * file below an allowed directory. A way that doesn't end at a root counts as denied and as not allowed. */
#pragma once

#include "path.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct file_key);
	__type(value, struct file_rule);
} file_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct name_key);
	__type(value, struct file_rule);
} name_rules SEC(".maps");

struct climb {
	struct dentry *dentry;
	struct vfsmount *vfsmount;
	u32 rules;
	u32 program;
	u32 path;
	u32 lists;
	bool outside; /* of the file system that the file is on */
	bool ended;
};

/* Without branches, each of which would double what the verifier has to look at: 6.1's gives up after a million instructions. */
static __always_inline u32 first_of(u32 one, u32 other)
{
	u64 none = ((u64)one - 1) >> 63;

	opaque(none);
	return one | (other & -(u32)none);
}

static __always_inline void note(struct climb *climb, struct file_rule *rule)
{
	u32 outside = climb->outside;

	if (!rule)
		return;
	climb->program = first_of(climb->program, rule->program);
	climb->path = first_of(climb->path, rule->path);
	opaque(outside);
	climb->lists |= rule->lists & (outside - 1);
}

/* What is looked up stands on the stack: no other task can come to it, and none is ever without a place for it. With it the stack of the
 * programs that judge is nearly used up. */
static long climb_step(u32 index, void *context)
{
	struct climb *climb = context;
	struct dentry *dentry = climb->dentry, *parent = BPF_CORE_READ(dentry, d_parent);
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);
	struct super_block *sb = BPF_CORE_READ(dentry, d_sb);
	struct name_key key = {};

	key.directory.rules = climb->rules;
	key.directory.device = BPF_CORE_READ(sb, s_dev);
	if (inode) { /* a name that is about to be given has none */
		key.directory.inode = BPF_CORE_READ(inode, i_ino);
		note(climb, bpf_map_lookup_elem(&file_rules, &key.directory));
	}
	if (dentry == parent) {
		enum above above = go_above(&climb->dentry, &climb->vfsmount);

		climb->outside = true;
		climb->ended = above == ABOVE_NOTHING;
		return above != ABOVE_MOUNT;
	}
	key.directory.inode = BPF_CORE_READ(parent, d_inode, i_ino);
	if (bpf_probe_read_kernel_str(key.name, sizeof(key.name), BPF_CORE_READ(dentry, d_name.name)) > 0)
		note(climb, bpf_map_lookup_elem(&name_rules, &key));
	climb->dentry = parent;
	return 0;
}

/* Climbs from a file or name to the last root. No mount: only to that of its file system. */
static __always_inline void climb_from(struct climb *climb, struct dentry *dentry, struct vfsmount *vfsmount)
{
	climb->dentry = dentry;
	climb->vfsmount = vfsmount;
	climb->outside = false;
	climb->ended = false;
	if (dentry)
		bpf_loop(WALK_STEPS, climb_step, climb, 0);
}

/* A name of an inode, by its place in the list of them. */
static __always_inline struct dentry *named_by(struct hlist_node *alias)
{
	if (!alias)
		return 0;
	if (bpf_core_field_exists(struct dentry, d_alias))
		return (void *)alias - bpf_core_field_offset(struct dentry, d_alias);
	return (void *)alias - bpf_core_field_offset(struct dentry___named, d_u.d_alias);
}

/* An open file. Before 6.8 one of an overlay's own has the overlay's path and the other file system's inode: that is looked at too. */
static __always_inline bool climb_file(struct climb *climb, struct file *file)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	struct inode *inode = BPF_CORE_READ(file, f_inode);

	climb_from(climb, dentry, BPF_CORE_READ(file, f_path.mnt));
	if (!climb->ended || BPF_CORE_READ(dentry, d_inode) == inode)
		return climb->ended;
	climb_from(climb, named_by(BPF_CORE_READ(inode, i_dentry.first)), 0);
	return climb->ended;
}

/* The rule by which a program may not be run; 0: it may. */
static __always_inline u32 judge_program(struct tag *tag, struct file *file, bool script, u32 *flags)
{
	struct policy *policy = bpf_map_lookup_elem(&policies, &tag->policy);
	struct climb climb = {};
	u32 missing;

	if (!policy)
		return RULE_NO_POLICY;
	if (!(policy->flags & POLICY_PROGRAMS))
		return 0;
	climb.rules = policy->rules;
	if (!climb_file(&climb, file))
		return RULE_UNRESOLVED;
	if (climb.program)
		return climb.program;
	if (!BPF_CORE_READ(file, f_inode, i_nlink))
		climb.lists = 0; /* no name leads to it any more, whatever it was called */
	missing = policy->lists & ~climb.lists;
#pragma unroll
	for (u32 i = 0; i < LISTS_MAX; i++) {
		if (missing & 1u << i) {
			*flags |= EXEC_NOT_ALLOWED;
			return policy->list[i];
		}
	}
	return script && policy->flags & POLICY_NO_SCRIPTS ? RULE_UNRESOLVED : 0;
}

/* Whether rules of paths are asked for at all; `rules`: which, and `rule`: what else is in the way. */
static __always_inline bool asks_for_paths(u32 number, u32 *rules, u32 *rule)
{
	struct policy *policy;

	*rule = 0;
	if (number >= POLICY_RESERVED && number != POLICY_SELF_TEST)
		return false;
	policy = bpf_map_lookup_elem(&policies, &number);
	if (!policy) {
		*rule = RULE_NO_POLICY;
		return false;
	}
	*rules = policy->rules;
	return policy->flags & POLICY_PATHS;
}

/* These two are functions of their own to the verifier too, which looks at them once and takes what they find for any number: else each
 * way through them would be one through all that follows. */
__noinline u32 rule_of_path(u64 dentry, u64 vfsmount, u32 policy)
{
	struct climb climb = {};
	u32 rule;

	if (!asks_for_paths(policy, &climb.rules, &rule))
		return rule;
	climb_from(&climb, (struct dentry *)dentry, (struct vfsmount *)vfsmount);
	return climb.ended ? climb.path : RULE_UNRESOLVED;
}

__noinline u32 rule_of_file(u64 file, u32 policy)
{
	struct climb climb = {};
	u32 rule;

	if (!asks_for_paths(policy, &climb.rules, &rule))
		return rule;
	if (!climb_file(&climb, (struct file *)file))
		return RULE_UNRESOLVED;
	return climb.path;
}

/* The rule by which a name, and what it names, may not be touched; 0: it may. */
static __always_inline u32 judge_path(struct tag *tag, struct dentry *dentry, struct vfsmount *vfsmount)
{
	return rule_of_path(number_of(dentry), number_of(vfsmount), tag->policy);
}

/* The same of an open file. */
static __always_inline u32 judge_file(struct tag *tag, struct file *file)
{
	return rule_of_file(number_of(file), tag->policy);
}
