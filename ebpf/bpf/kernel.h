/* The few kernel types that the programs read, with the few fields that they use. Names decide: the loader looks each field up in the
 * running kernel's own BTF, wherever it lies there (so order and neighbours don't matter here), and what may be missing is asked for
 * with bpf_core_field_exists. */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_endian.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

#define CORE __attribute__((preserve_access_index))

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16
#define AF_PACKET 17
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_SEQPACKET 5
#define SOCK_PACKET 10
#define SOCK_TYPE_MASK 0xf
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define IPPROTO_HOPOPTS 0
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ROUTING 43
#define IPPROTO_DSTOPTS 60
#define IPPROTO_MPTCP 262
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_FIN_WAIT1 4
#define TCP_FIN_WAIT2 5
#define TCP_CLOSE 7
#define TCP_CLOSE_WAIT 8
#define TCP_LAST_ACK 9
#define TCP_LISTEN 10
#define TCP_CLOSING 11
#define BINFMTFS_MAGIC 0x42494e4d
#define BPFFS_MAGIC 0xcafe4a11
#define SYSFS_MAGIC 0x62656572
#define PROC_SUPER_MAGIC 0x9fa0
#define CGROUP_SUPER_MAGIC 0x27e0eb
#define TRACEFS_MAGIC 0x74726163
#define DEBUGFS_MAGIC 0x64626720
#define O_ACCMODE 3
#define PID_FS_MAGIC 0x50494446
#define PTRACE_ATTACH 16
#define PTRACE_SEIZE 0x4206
#define PTRACE_MODE_ATTACH 2
#define SB_NOUSER (1ul << 31) /* a file system that nobody mounts: memfds, pipes, sockets */
#define PROT_EXEC 4
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFLNK 0120000
#define S_IFREG 0100000
#define S_IFDIR 0040000
#define S_IFCHR 0020000
#define EPERM 1
#define SIGKILL 9
#define SIGNAL_GROUP_EXIT 4
#define SOCK_DONE 1 /* a bit of sk_flags: the peer's FIN has come */

typedef struct {
	u32 val;
} kid_t;
typedef struct {
	int counter;
} katomic_t;

/* Numbers differ by kernel: the loader looks them up by name too. */
enum lockdown_reason {
	LOCKDOWN_DEV_MEM,
	LOCKDOWN_KEXEC,
	LOCKDOWN_PCI_ACCESS,
	LOCKDOWN_IOPORT,
	LOCKDOWN_MSR,
	LOCKDOWN_ACPI_TABLES,
	LOCKDOWN_DEBUGFS,
	LOCKDOWN_KCORE,
	LOCKDOWN_KPROBES,
	LOCKDOWN_TRACEFS,
};

struct __kernel_timex {
	unsigned int modes;
} CORE;
struct qstr {
	u32 len;
	const unsigned char *name;
} CORE;
struct hlist_node {
	struct hlist_node *next;
} CORE;
struct hlist_head {
	struct hlist_node *first;
} CORE;
struct list_head {
	struct list_head *next;
} CORE;
struct dentry;
struct super_block {
	u32 s_dev;
	unsigned long s_flags;
	unsigned long s_magic;
	struct dentry *s_root;
	struct list_head s_mounts;
} CORE;
struct inode {
	unsigned long i_ino;
	u32 i_nlink;
	u16 i_mode;
	u32 i_rdev;
	u32 i_generation;
	struct super_block *i_sb;
	struct hlist_head i_dentry;
	void *i_private;
} CORE;
struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
	union {
		struct hlist_node d_alias;
	};
} CORE;
/* Before 7.2 (7.0 and 7.1 weren't looked at) that union had a name. */
struct dentry___named {
	union {
		struct hlist_node d_alias;
	} d_u;
} CORE;
struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
} CORE;
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct mnt_namespace *mnt_ns;
	struct list_head mnt_instance;
} CORE;
/* On later kernels the mounts of a file system have a list of their own kind. */
struct super_block___later {
	struct mount *s_mounts;
} CORE;
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
} CORE;
struct file {
	struct path f_path;
	struct inode *f_inode;
	u32 f_flags;
	void *private_data;
} CORE;
struct fdtable {
	u32 max_fds;
	struct file **fd;
} CORE;
struct files_struct {
	struct fdtable *fdt;
} CORE;
struct pid {
	u32 level; /* of its namespace: 0 is the machine's first */
	struct hlist_head tasks[4];
} CORE;
/* A file of /proc/PID. */
struct proc_inode {
	struct pid *pid;
	struct inode vfs_inode;
} CORE;
struct fs_struct {
	struct path root;
	struct path pwd;
} CORE;
struct ns_common {
	u32 inum;
} CORE;
struct mnt_namespace {
	struct ns_common ns;
} CORE;
struct nsproxy {
	struct mnt_namespace *mnt_ns;
} CORE;
struct tty_struct {
	char name[64];
} CORE;
struct signal_struct {
	katomic_t live;
	int group_exit_code;
	u32 flags;
	struct tty_struct *tty;
} CORE;
struct capabilities {
	u64 all;
} CORE;
struct cred {
	kid_t uid, gid, euid, egid, suid, sgid, fsuid, fsgid;
	struct capabilities cap_permitted;
} CORE;
struct mm_struct {
	unsigned long arg_start, arg_end;
} CORE;
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long bx, cx, dx, si, di, r10, orig_ax;
} CORE;
struct thread_info {
	u32 status;
} CORE;
#else
struct pt_regs {
	u64 regs[31];
	u64 orig_x0;
	int syscallno;
} CORE;
struct thread_info {
	unsigned long flags;
} CORE;
#endif
struct task_struct {
	struct thread_info thread_info;
	u64 self_exec_id;
	int pid, tgid;
	struct pid *thread_pid;
	struct hlist_node pid_links[4];
	struct list_head ptraced; /* whom it traces */
	struct list_head ptrace_entry;
	struct files_struct *files;
	struct task_struct *group_leader;
	struct task_struct *real_parent;
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	const struct cred *cred;
	kid_t loginuid;
	int exit_code;
	u64 start_boottime;
	char comm[16];
} CORE;
struct linux_binprm {
	struct file *file;
	const char *filename;
	const char *interp;
	int argc;
} CORE;

struct in6_addr {
	union {
		u8 u6_addr8[16];
	} in6_u;
} CORE;
struct net {
	struct ns_common ns;
} CORE;
typedef struct {
	struct net *net;
} possible_net_t;
struct sock_common {
	u16 skc_family;
	volatile u8 skc_state;
	u16 skc_num;
	u16 skc_dport;
	u32 skc_daddr;
	u32 skc_rcv_saddr;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	possible_net_t skc_net;
	unsigned long skc_flags;
} CORE;
struct socket;
struct sock {
	struct sock_common __sk_common;
	struct socket *sk_socket;
	u16 sk_protocol;
	u16 sk_type;
	int sk_err;
	int sk_err_soft;
} CORE;
struct socket {
	struct sock *sk;
} CORE;
struct tcp_sock {
	u64 bytes_sent;
	u64 bytes_retrans;
	u64 bytes_received;
} CORE;
struct sockaddr_un {
	u16 sun_family;
} CORE;
struct unix_address {
	int len;
	struct sockaddr_un name[0];
} CORE;
struct unix_sock {
	struct unix_address *addr;
	struct path path;
	struct sock *peer;
} CORE;
struct module {
	char name[56];
} CORE;
