/* One unit: the programs share their maps.
 *
 * The kernel skips a tracing program that is active on the CPU already, and counts that (recursion_misses). Of those here that can only
 * be socket_change, for what socket_follow sees: forks, execs, exits, reads from sockets and loads of modules are done by processes, no
 * interrupt does one, and a tracepoint's programs aren't preempted. LSM programs have that guard up to 6.1 only; there, on a kernel that
 * preempts itself, one process may find a program active for another, isn't asked, and it is told as skipped. Programs of control
 * groups have none. */
#include "maps.h"
#include "path.h"
#include "place.h"
#include "judge.h"
#include "opened.h"
#include "act.h"
#include "session.bpf.c"
#include "process.bpf.c"
#include "flow.h"
#include "network.bpf.c"
#include "socket.bpf.c"
#include "datagram.bpf.c"
#include "file.bpf.c"
#include "touch.bpf.c"
#include "act.bpf.c"
#include "call.bpf.c"

/* Only so that the object's type information holds the records' layouts, which a test compares. */
const volatile union {
	struct accepted accepted;
	struct executed executed;
	struct refused refused;
	struct exited exited;
	struct connection connection;
	struct answer answer;
	struct port_range port_range;
	struct file_event file_event;
	struct act act;
	struct name_key name_key;
	struct file_rule file_rule;
} every_record = {};

char LICENSE[] SEC("license") = "GPL";
