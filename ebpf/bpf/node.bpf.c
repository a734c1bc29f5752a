/* One unit: the programs share their maps. */
#include "maps.h"
#include "path.h"
#include "judge.h"
#include "opened.h"
#include "session.bpf.c"
#include "process.bpf.c"
#include "network.bpf.c"
#include "file.bpf.c"
#include "touch.bpf.c"
#include "act.bpf.c"

/* Only so that the object's type information holds the records' layouts, which a test compares. */
const volatile union {
	struct accepted accepted;
	struct executed executed;
	struct refused refused;
	struct exited exited;
	struct connection connection;
	struct port_range port_range;
	struct file_event file_event;
	struct act act;
	struct name_key name_key;
	struct file_rule file_rule;
} every_record = {};

char LICENSE[] SEC("license") = "GPL";
