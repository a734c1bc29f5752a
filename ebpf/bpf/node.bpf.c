/* One unit: the programs share their maps. */
#include "maps.h"
#include "path.h"
#include "session.bpf.c"
#include "process.bpf.c"
#include "network.bpf.c"

/* Only so that the object's type information holds the records' layouts, which a test compares. */
const volatile union {
	struct accepted accepted;
	struct executed executed;
	struct refused refused;
	struct exited exited;
	struct connection connection;
	struct port_range port_range;
} every_record = {};

char LICENSE[] SEC("license") = "GPL";
