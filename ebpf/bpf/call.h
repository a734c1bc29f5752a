/* System calls as the kernel's tracepoints give them: which one, by whose numbering, and with which arguments. Those alone that no other
 * hook of this tier sees. */
#pragma once

#include "kernel.h"

enum call {
	CALL_OTHER,
	CALL_ADJTIMEX,
	CALL_BPF,
	CALL_CLOCK_ADJTIME,
	CALL_CLOCK_SETTIME,
	CALL_CONNECT,
	CALL_IDENTITY, /* setuid, setgid, and all that are like them */
	CALL_KEXEC,
	CALL_MEMORY, /* of another process: process_vm_readv, process_vm_writev */
	CALL_MOUNT,
	CALL_MOVE_MOUNT,
	CALL_OPEN,
	CALL_PIDFD_GETFD,
	CALL_PORTS, /* iopl, ioperm */
	CALL_PTRACE,
	CALL_SETTIMEOFDAY, /* and stime */
	CALL_SOCKET,
	CALL_SOCKETCALL, /* several in one, of 32-bit programs */
};

struct call_made {
	enum call call;
	bool narrow; /* made by a 32-bit program: other numbers, other registers */
};

/* Numbers that all architectures share. */
#define SHARED_BY_ALL                                                                                                                        \
	case 429:                                                                                                                            \
		return CALL_MOVE_MOUNT;                                                                                                      \
	case 437: /* openat2 */                                                                                                              \
		return CALL_OPEN;                                                                                                            \
	case 438:                                                                                                                            \
		return CALL_PIDFD_GETFD

/* And those that 32-bit programs of x86 and of arm share. */
#define SHARED_BY_NARROW                                                                                                                     \
	case 5: /* open */                                                                                                                   \
	case 8: /* creat */                                                                                                                  \
		return CALL_OPEN;                                                                                                            \
	case 21:                                                                                                                             \
		return CALL_MOUNT;                                                                                                           \
	case 23: /* setuid, setreuid, setresuid, setfsuid: of 16 bits, then of 32 */                                                         \
	case 70:                                                                                                                             \
	case 164:                                                                                                                            \
	case 138:                                                                                                                            \
	case 213:                                                                                                                            \
	case 203:                                                                                                                            \
	case 208:                                                                                                                            \
	case 215:                                                                                                                            \
	case 46: /* the same of groups */                                                                                                    \
	case 71:                                                                                                                             \
	case 170:                                                                                                                            \
	case 139:                                                                                                                            \
	case 214:                                                                                                                            \
	case 204:                                                                                                                            \
	case 210:                                                                                                                            \
	case 216:                                                                                                                            \
		return CALL_IDENTITY;                                                                                                           \
	case 25: /* stime, settimeofday */                                                                                                   \
	case 79:                                                                                                                             \
		return CALL_SETTIMEOFDAY;                                                                                                    \
	case 124:                                                                                                                            \
		return CALL_ADJTIMEX;                                                                                                        \
	case 404:                                                                                                                            \
		return CALL_CLOCK_SETTIME;                                                                                                   \
	case 405:                                                                                                                            \
		return CALL_CLOCK_ADJTIME;                                                                                                   \
	case 26:                                                                                                                             \
		return CALL_PTRACE

#if defined(__TARGET_ARCH_x86)

/* asm/unistd_64.h; beyond 511 those that x32 has for itself. */
static __always_inline enum call call_of(u32 number)
{
	switch (number) {
	case 2: /* open */
	case 85: /* creat */
	case 257: /* openat */
	case 304: /* open_by_handle_at */
		return CALL_OPEN;
	case 41:
		return CALL_SOCKET;
	case 42:
		return CALL_CONNECT;
	case 101:
	case 521:
		return CALL_PTRACE;
	case 105: /* setuid, setreuid, setresuid, setfsuid */
	case 113:
	case 117:
	case 122:
	case 106: /* the same of groups */
	case 114:
	case 119:
	case 123:
		return CALL_IDENTITY;
	case 159:
		return CALL_ADJTIMEX;
	case 164:
		return CALL_SETTIMEOFDAY;
	case 165:
		return CALL_MOUNT;
	case 227:
		return CALL_CLOCK_SETTIME;
	case 305:
		return CALL_CLOCK_ADJTIME;
	case 172: /* iopl */
	case 173: /* ioperm */
		return CALL_PORTS;
	case 246: /* kexec_load */
	case 320: /* kexec_file_load */
	case 528:
		return CALL_KEXEC;
	case 310:
	case 311:
	case 539:
	case 540:
		return CALL_MEMORY;
	case 321:
		return CALL_BPF;
	SHARED_BY_ALL;
	}
	return CALL_OTHER;
}

/* asm/unistd_32.h */
static __always_inline enum call narrow_call_of(u32 number)
{
	switch (number) {
	case 295: /* openat */
	case 342: /* open_by_handle_at */
		return CALL_OPEN;
	case 101: /* ioperm */
	case 110: /* iopl */
		return CALL_PORTS;
	case 102:
		return CALL_SOCKETCALL;
	case 264:
		return CALL_CLOCK_SETTIME;
	case 343:
		return CALL_CLOCK_ADJTIME;
	case 283: /* kexec_load */
		return CALL_KEXEC;
	case 347:
	case 348:
		return CALL_MEMORY;
	case 357:
		return CALL_BPF;
	case 359:
		return CALL_SOCKET;
	case 362:
		return CALL_CONNECT;
	SHARED_BY_NARROW;
	SHARED_BY_ALL;
	}
	return CALL_OTHER;
}

#define X32 0x40000000u
#define TS_COMPAT 2

static __always_inline struct call_made call_made(struct task_struct *task, long number)
{
	if (task->thread_info.status & TS_COMPAT)
		return (struct call_made){narrow_call_of(number), true};
	return (struct call_made){call_of((u32)number & ~X32), false};
}

static __always_inline long call_number(struct pt_regs *regs)
{
	return regs->orig_ax;
}

static __always_inline u64 call_argument(struct pt_regs *regs, bool narrow, u32 index)
{
	switch (index) {
	case 0:
		return narrow ? (u32)regs->bx : regs->di;
	case 1:
		return narrow ? (u32)regs->cx : regs->si;
	case 2:
		return narrow ? (u32)regs->dx : regs->dx; /* the same register */
	case 3:
		return narrow ? (u32)regs->si : regs->r10;
	}
	return 0;
}

#elif defined(__TARGET_ARCH_arm64)

/* asm-generic/unistd.h */
static __always_inline enum call call_of(u32 number)
{
	switch (number) {
	case 40:
		return CALL_MOUNT;
	case 56: /* openat */
	case 265: /* open_by_handle_at */
		return CALL_OPEN;
	case 104: /* kexec_load */
	case 294: /* kexec_file_load */
		return CALL_KEXEC;
	case 112:
		return CALL_CLOCK_SETTIME;
	case 170:
		return CALL_SETTIMEOFDAY;
	case 171:
		return CALL_ADJTIMEX;
	case 266:
		return CALL_CLOCK_ADJTIME;
	case 117:
		return CALL_PTRACE;
	case 145: /* setreuid, setuid, setresuid, setfsuid */
	case 146:
	case 147:
	case 151:
	case 143: /* the same of groups */
	case 144:
	case 149:
	case 152:
		return CALL_IDENTITY;
	case 198:
		return CALL_SOCKET;
	case 203:
		return CALL_CONNECT;
	case 270:
	case 271:
		return CALL_MEMORY;
	case 280:
		return CALL_BPF;
	SHARED_BY_ALL;
	}
	return CALL_OTHER;
}

/* Those of arm. */
static __always_inline enum call narrow_call_of(u32 number)
{
	switch (number) {
	case 322: /* openat */
	case 371: /* open_by_handle_at */
		return CALL_OPEN;
	case 262:
		return CALL_CLOCK_SETTIME;
	case 372:
		return CALL_CLOCK_ADJTIME;
	case 281:
		return CALL_SOCKET;
	case 283:
		return CALL_CONNECT;
	case 347: /* kexec_load */
	case 401: /* kexec_file_load */
		return CALL_KEXEC;
	case 376:
	case 377:
		return CALL_MEMORY;
	case 386:
		return CALL_BPF;
	SHARED_BY_NARROW;
	SHARED_BY_ALL;
	}
	return CALL_OTHER;
}

#define TIF_32BIT (1ul << 22)

static __always_inline struct call_made call_made(struct task_struct *task, long number)
{
	if (task->thread_info.flags & TIF_32BIT)
		return (struct call_made){narrow_call_of(number), true};
	return (struct call_made){call_of(number), false};
}

static __always_inline long call_number(struct pt_regs *regs)
{
	return regs->syscallno;
}

/* The first register holds what is returned by then. */
static __always_inline u64 call_argument(struct pt_regs *regs, bool narrow, u32 index)
{
	u64 value = index ? regs->regs[index] : regs->orig_x0;

	return narrow ? (u32)value : value;
}

#else
#error "the numbers of this architecture's system calls aren't known here"
#endif
