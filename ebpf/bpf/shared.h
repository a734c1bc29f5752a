/* What the programs and user space share: the layout of records, maps and numbers. src/sensor/layout.rs says the same in Rust, and a
 * test compares the two through the object's BTF. Numbers are never reused; a change of layout raises LAYOUT_VERSION. Integers are
 * in the host's order except for addresses, which are sixteen bytes as on the wire (IPv4 as ::ffff:a.b.c.d). Times are boottime ns. */
#pragma once

#define LAYOUT_VERSION 5

/* Kinds of records; also the index into the counters `seen` and `lost`. */
enum kind {
	KIND_ACCEPTED = 1,
	KIND_FORKED = 2, /* counted, never sent: a child that inherits its parent's session */
	KIND_EXECUTED = 3,
	KIND_EXITED = 4,
	KIND_CONNECTION_OPENED = 5,
	KIND_CONNECTION_FAILED = 6,
	KIND_CONNECTION_CLOSED = 7,
	KIND_CONNECTION_ACCEPTED = 8,
	KIND_CONNECTION_DENIED = 9,
	KIND_FILE_OPENED = 10,
	KIND_FILE_RENAMED = 11,
	KIND_FILE_DELETED = 12,
	KIND_FILE_MODE = 13,
	KIND_USERS = 14,
	KIND_MODULE = 15,
	KIND_BPF = 16,
	KIND_PTRACE = 17,
	KIND_MOUNT = 18,
	KIND_EXEC_REFUSED = 19,
	KIND_FILE_LINKED = 20,
	KIND_UNIX = 21,
	KIND_FILE_DENIED = 22,
	KIND_ANSWERED = 23, /* no evidence, so neither counted nor missed */
	KIND_FILE_CREATED = 24,
	KIND_FILE_OWNER = 25,
	KIND_FILE_TRUNCATED = 26,
	KIND_FILE_ATTRIBUTE = 27,
	KIND_SOCKET = 28,
	KIND_KERNEL = 29,
	KIND_GROUPS = 30,
	KIND_COUNT = 64, /* with room for more, so that counters go on when an agent learns of new kinds */
};

/* Slots of the array `control`: each a u64 with one writer, so that no reader ever sees half of a change. */
enum control_slot {
	CONTROL_LAYOUT = 0,	 /* LAYOUT_VERSION of who made the maps */
	CONTROL_HEARTBEAT = 1,	 /* when the agent last said that it lives */
	CONTROL_LIMIT = 2,	 /* a heartbeat older than this refuses; 0: no agent was ever ready */
	CONTROL_CLOSED = 3,	 /* not 0: the agent can't take any more evidence */
	CONTROL_AGENT_PID = 4,	 /* the agent's own process, by two numbers that nobody else can have */
	CONTROL_AGENT_START = 5, /* in clock ticks, as /proc/PID/stat tells */
	CONTROL_GENERATION = 6,	 /* which set of programs sends; the others only watch */
	CONTROL_EXPECTED = 7,	 /* tuples that were put in and not taken back */
	CONTROL_ACCEPTED = 8,	 /* tuples that were used up, counted by the kernel */
	CONTROL_ROOT = 9,	 /* the root directory (a kernel address) that the self-test's process has */
	CONTROL_MOUNTS = 10,	 /* its mount namespace, likewise */
	CONTROL_SLOTS = 16,
};

/* Policies of the self-test, which is neither counted nor told. Under the first it may do nothing, as if no evidence could be kept;
 * nobody ever says what the second allows; under the third programs may begin, and no file may be mapped to be run. */
#define POLICY_CLOSED 0xffffffffu
#define POLICY_SELF_TEST 0xfffffffeu
#define POLICY_SELF_TEST_MAPS 0xfffffffdu
#define POLICY_RESERVED 0xfffffffdu /* from here on */

struct tuple {
	unsigned char local[16];
	unsigned char remote[16];
	unsigned short local_port;
	unsigned short remote_port;
};

struct expected {
	unsigned char session[16];
	unsigned int policy;
	unsigned int acceptor; /* the process that has accepted it; 0: that wasn't seen */
};

/* In the storage of each task of a session. The session's own UUID, so that nothing depends on an agent's memory. */
struct tag {
	unsigned char session[16];
	unsigned int policy;
	unsigned int exited; /* the process's end has been told (kept in the leader's tag) */
	unsigned long long executed; /* when the process last ran a new program; 0: never, it is a fork */
	unsigned long long untold; /* that program was killed, and there was no room to say so */
	unsigned long long execution; /* which of the process's executions was looked at last (self_exec_id) */
};

/* At the start of each record: what happened, when, and who did it. */
struct subject {
	unsigned short kind;
	unsigned short flags;
	unsigned int pid;
	unsigned int tid;
	unsigned int ppid;
	unsigned long long time;
	unsigned long long start; /* of the process */
	unsigned char session[16];
	unsigned int policy;
	unsigned int uid;
	unsigned char comm[16];
};

struct accepted {
	struct subject who;
	struct tuple tuple;
	unsigned int reserved;
};

/* flags of `executed` */
#define EXEC_ARGS_CUT 1u	/* more than ARGS_MAX bytes */
#define EXEC_ARGS_UNREADABLE 2u /* a page couldn't be read without sleeping */
#define EXEC_PATH_CUT 4u	/* `path` lacks components between its first and the rest */
#define EXEC_CWD_CUT 8u
#define EXEC_UNLINKED 16u	/* no name leads to the file: memfd, or deleted */
#define EXEC_OTHER_ROOT 32u	/* the process's root isn't the agent's */
#define EXEC_REFUSED 64u	/* killed before its first instruction */
#define EXEC_UNREACHABLE 128u	/* the file or directory isn't below the process's root */
#define EXEC_SCRIPT 256u	/* `given` is a script and `interpreter` runs it */
#define EXEC_MEMFD 512u
#define EXEC_NOT_ALLOWED 1024u	/* `rule` is of an allow list, which doesn't hold it */

/* Followed by path, given, interpreter, cwd, args: paths as components from the leaf up, each ended by NUL. */
struct executed {
	struct subject who;
	unsigned int gid;
	unsigned int euid;
	unsigned int egid;
	unsigned int loginuid;
	unsigned long long permitted; /* capabilities(7), a bit each */
	unsigned long long cgroup;
	unsigned long long inode;
	unsigned int device;
	unsigned int mount_namespace;
	unsigned long long args_total;
	unsigned int argc;
	unsigned int path_len;
	unsigned int given_len;
	unsigned int interpreter_len;
	unsigned int cwd_len;
	unsigned int args_len;
	unsigned char tty[24];
	unsigned int rule; /* of EXEC_REFUSED: which */
	unsigned int flags;
};

/* Refused before it began (LSM). Followed by path: of a script the script, or the interpreter that is refused. */
struct refused {
	struct subject who;
	unsigned int rule;
	unsigned int flags; /* as of `executed` */
	unsigned int path_len;
	unsigned int reserved;
	unsigned char given[256];
};

/* What happened to a file. `count`: how often since the last record of the same file, process and mode. Followed by path and second:
 * another path, where a symbolic link leads, or the name of an attribute. */
#define FILE_CUT 1u	     /* a path lacks components after its first; it counts as watched */
#define FILE_REFUSED 2u	     /* the agent's own pins and files */
#define FILE_UNREACHABLE 4u  /* not below the process's root */
struct file_event {
	struct subject who;
	unsigned long long inode;
	unsigned long long count;
	unsigned int device;
	unsigned int mode; /* flags of the open, the new permissions, or whose it is now */
	unsigned int flags;
	unsigned int path_len;
	unsigned int second_len;
	unsigned int rule;  /* of KIND_FILE_DENIED */
	unsigned int tried; /* of KIND_FILE_DENIED: enum tried */
	unsigned int group; /* of KIND_FILE_OWNER */
};

enum tried {
	TRIED_OPEN = 1,
	TRIED_RENAME = 2,
	TRIED_LINK = 3,
	TRIED_DELETE = 4,
	TRIED_MODE = 5,
	TRIED_OWNER = 6,
	TRIED_TRUNCATE = 7,
	TRIED_CREATE = 8,
	TRIED_CONNECT = 9,
};

/* Files that a process has opened, so that the same again is counted and not told. In its leader's storage. */
#define OPENED_MAX 8
#define OPENED_PATH 256
struct opened_file {
	unsigned long long inode;
	unsigned long long dentry; /* by which of its names */
	unsigned long long again;
	unsigned int generation; /* of those that had that number one after the other */
	unsigned int device;
	unsigned int mode;
	unsigned int flags;
	unsigned int path_len;
	unsigned int reserved;
	unsigned char path[OPENED_PATH];
};
struct opened_files {
	struct opened_file file[OPENED_MAX];
	unsigned int next;
	unsigned int busy; /* a thread of the process is at it */
};

/* A directory or file that user space has a word about. */
#define LIES_WATCHED 1u
#define LIES_OWN 2u /* the agent's: nothing of a session gets at it */
struct watched_key {
	unsigned long long inode;
	unsigned int device;
	unsigned int reserved;
};

/* Acts of other kinds; what the fields mean stands in src/sensor/record.rs. */
struct act {
	struct subject who;
	unsigned int number[8];
	unsigned char session[16];
	unsigned char first[64];
	unsigned char second[128];
};

/* Of KIND_KERNEL, the first number: by what a process gets at the kernel itself, or sets its clock. */
enum reach {
	REACH_MEMORY = 1,
	REACH_IMAGE = 2,
	REACH_SUCCESSOR = 3,
	REACH_PORTS = 4,
	REACH_REGISTERS = 5,
	REACH_DEVICES = 6,
	REACH_FIRMWARE = 7,
	REACH_TRACING = 8,
	REACH_PROBES = 9,
	REACH_DEBUGGING = 10,
	CLOCK_SET = 11,
	CLOCK_ADJUSTED = 12,
};

struct exited {
	struct subject who;
	unsigned long long executed; /* when its program started; 0: it never ran one of its own */
	unsigned int status;	     /* as wait(2) gives it */
	unsigned int reserved;
};

/* flags of `connection` */
#define CONNECTION_UNCONNECTED 1u /* datagrams sent to an address without a connect */
#define CONNECTION_ENDS_SESSION 2u
#define CONNECTION_IN_PLACE 4u	 /* the peer called us: a listener of the session */

/* `rule` of a denial that no rule of a list caused */
#define RULE_NOT_ALLOWED 0u	    /* the policy has an allow list, which doesn't hold it */
#define RULE_CLOSED 0xffffffffu	    /* no evidence could be kept */
#define RULE_PROTOCOL 0xfffffffeu   /* a kind of socket whose destinations can't be checked */
#define RULE_NO_POLICY 0xfffffffdu  /* nobody has said what this policy allows */
#define RULE_UNRESOLVED 0xfffffffcu /* which file it is couldn't be made out, so a rule may speak of it */

struct connection {
	struct subject who;
	unsigned char local[16];
	unsigned char remote[16];
	unsigned short local_port;
	unsigned short remote_port;
	unsigned int protocol;
	unsigned int flags;
	unsigned int error;
	unsigned int rule;
	unsigned int net_namespace;
	unsigned long long cookie;
	unsigned long long opened;
	unsigned long long sent;
	unsigned long long received;
	unsigned long long datagrams;
};

/* What a name server has sent to a socket of a session: the message, or its beginning. */
#define ANSWER_MAX 1232
struct answer {
	struct subject who;
	unsigned int length;
	unsigned int reserved;
	unsigned char message[ANSWER_MAX];
};

/* In the storage of each socket of a session. */
struct socket_state {
	struct subject who; /* who made it, connected or listens */
	unsigned long long opened; /* 0: not yet established */
	unsigned int role;
	unsigned int told; /* the state of TCP that was seen last */
	unsigned char local[16];
	unsigned char remote[16];
	unsigned short local_port;
	unsigned short remote_port;
	unsigned int net_namespace;
	unsigned long long sent; /* bytes of a datagram socket, to its peer and from it */
	unsigned long long received;
	unsigned int answer_at; /* of a stream from a name server: where the next length or message begins */
	unsigned int answer_length; /* of that message; 0: its length is next */
};
#define ROLE_NONE 0u /* made, and not in use yet */
#define ROLE_CONNECTS 1u
#define ROLE_LISTENS 2u
#define ROLE_ACCEPTED 3u
#define ROLE_DATAGRAM 4u
#define ROLE_PROMISED 5u /* a listener outside of sessions, so that it is never tagged itself */
#define ROLE_ATTEMPTS 6u /* was let through to connect, and has sent nothing yet */

/* Where an unconnected socket has sent to. */
#define FLOWS_MAX 8
struct flow {
	unsigned char remote[16];
	unsigned short remote_port;
	unsigned short used;
	unsigned int reserved;
	unsigned long long opened;
	unsigned long long datagrams;
	unsigned long long sent;
	unsigned long long received;
};
struct flows {
	struct flow flow[FLOWS_MAX];
	unsigned int next;
	unsigned int reserved;
};

/* Rules of a policy: `rules` names a set of entries in the tries, so that a policy changes from one set to another in one write. */
#define POLICY_ALLOW_LIST 1u   /* what `allowed` doesn't hold is denied */
#define POLICY_ENDS_SESSION 2u /* a denial ends the session */
#define POLICY_RESTRICTS 4u    /* has rules of networks at all */
#define POLICY_PROGRAMS 8u     /* has rules of programs */
#define POLICY_PATHS 16u       /* has rules of paths */
#define POLICY_NO_SCRIPTS 32u  /* a rule may speak of a script, and the kernel doesn't say which file it was */
#define POLICY_UNFOLLOWED 64u  /* set by the kernel: a socket was made under it whose packets no rule can keep from a network */
#define LISTS_MAX 16
struct policy {
	unsigned int rules;
	unsigned int flags;
	unsigned int lists;		/* allow lists of programs: a bit for each, and a program must stand in all of them */
	unsigned int list[LISTS_MAX];	/* the rule that each is */
	unsigned int reserved;
};
struct net_key {
	unsigned int prefix_len; /* counts `rules` too: 32 + the network's */
	unsigned int rules;
	unsigned char address[16];
};
#define RANGES_MAX 16
struct port_range {
	unsigned short low;
	unsigned short high;
	unsigned int protocol; /* 0: any */
	unsigned int rule;
};
struct net_rule {
	unsigned int count;
	struct port_range range[RANGES_MAX];
};

/* A file, or a directory with all below it, in a set of rules. */
struct file_key {
	unsigned long long inode;
	unsigned int device;
	unsigned int rules;
};
/* Whatever has this name in that directory, now or later; ended and filled up with zeros. */
struct name_key {
	struct file_key directory;
	unsigned char name[256];
};
struct file_rule {
	unsigned int program; /* the rule by which it may not be run; 0: none */
	unsigned int path;    /* the rule by which it may not be touched */
	unsigned int lists;   /* the allow lists of programs that it stands in */
	unsigned int reserved;
};

#define ARGS_MAX 32768
#define PATH_CAP 4096
#define NAME_CAP 256
#define GIVEN_CAP 4096
#define SCRATCH_DATA 49152
#define PLACES_EACH 8 /* for each CPU */
