/* What a session does, much of it, and nothing else: programs run, files opened, connections made. It takes the time itself, so that
 * neither its own start nor the way to it is in the figures.
 *
 *   load exec N PROGRAM            N times fork, execve, wait         prints "NANOSECONDS"
 *   load open N FOLDER FILES       N times open and close, of so many of the folder's files in turn
 *   load connect N PORT            N times connect to a listener on loopback and close
 *   load flood SECONDS PROCESSES PROGRAM PORT    all that goes of both, and prints what came of it:
 *                                  "executed E killed K refused R connected C denied D"
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FILES_MAX 256
/* What a child says when it may not run its program. */
#define REFUSED 77

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* How running the program once ended: wait(2)'s status. */
static int run(const char *program)
{
	char *arguments[] = {(char *)program, NULL}, *nothing[] = {NULL};
	int status;
	pid_t child = fork();

	if (child < 0)
		fail("fork");
	if (!child) {
		execve(program, arguments, nothing);
		_exit(errno == EPERM ? REFUSED : 1);
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			fail("waitpid");
	return status;
}

/* Connects and closes; each time to another address of this machine, or ports that are not yet free again would run out. Gives 0, or
 * why not. */
static int reach(unsigned int number, unsigned short port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	int error, file = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (file < 0)
		fail("socket");
	to.sin_addr.s_addr = htonl(0x7f000001 + number % 200);
	error = connect(file, (struct sockaddr *)&to, sizeof(to)) ? errno : 0;
	close(file);
	return error;
}

static void exec_times(long times, const char *program)
{
	while (times--)
		if (run(program))
			fail("the program's end");
}

static void connect_times(long times, unsigned short port)
{
	while (times--) {
		errno = reach(times, port);
		if (errno)
			fail("connect");
	}
}

/* The paths of so many of a folder's files. */
static void list(const char *folder, long count, char paths[FILES_MAX][512])
{
	struct dirent *entry;
	struct stat stat;
	long found = 0;
	DIR *all = opendir(folder);

	if (!all)
		fail(folder);
	while (found < count && found < FILES_MAX && (entry = readdir(all))) {
		snprintf(paths[found], 512, "%s/%s", folder, entry->d_name);
		if (!lstat(paths[found], &stat) && S_ISREG(stat.st_mode))
			found++;
	}
	closedir(all);
	if (found < count) {
		fprintf(stderr, "%s has only %ld files\n", folder, found);
		exit(1);
	}
}

static void open_times(long times, char paths[FILES_MAX][512], long files)
{
	while (times--) {
		int file = open(paths[times % files], O_RDONLY | O_CLOEXEC);

		if (file < 0)
			fail(paths[times % files]);
		close(file);
	}
}

/* Counted by all processes of a flood together. */
struct counts {
	long executed, killed, refused, connected, denied;
};

static void count(long *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static void flood_until(long long end, const char *program, unsigned short port, unsigned int number, struct counts *counts)
{
	for (; now() < end; number += 7) {
		int status = run(program), error = reach(number, port);

		if (!status)
			count(&counts->executed);
		else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
			count(&counts->killed);
		else if (WIFEXITED(status) && WEXITSTATUS(status) == REFUSED)
			count(&counts->refused);
		else
			fail("the program's end");
		if (!error)
			count(&counts->connected);
		else if (error == EPERM)
			count(&counts->denied);
		else {
			errno = error;
			fail("connect");
		}
	}
}

static void flood(long seconds, long processes, const char *program, unsigned short port)
{
	struct counts *counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	long long end = now() + seconds * 1000000000LL;
	int status;

	if (counts == MAP_FAILED)
		fail("mmap");
	for (long i = 0; i < processes; i++) {
		pid_t child = fork();

		if (child < 0)
			fail("fork");
		if (!child) {
			flood_until(end, program, port, i, counts);
			_exit(0);
		}
	}
	while (wait(&status) > 0)
		if (status)
			fail("a process of the flood");
	printf("executed %ld killed %ld refused %ld connected %ld denied %ld\n", counts->executed, counts->killed, counts->refused,
	       counts->connected, counts->denied);
}

int main(int argc, char **argv)
{
	static char paths[FILES_MAX][512];
	long times = argc > 2 ? atol(argv[2]) : 0, files;
	long long start;

	if (argc == 6 && !strcmp(argv[1], "flood")) {
		flood(times, atol(argv[3]), argv[4], atoi(argv[5]));
		return 0;
	}
	if (argc == 5 && !strcmp(argv[1], "open")) {
		files = atol(argv[4]);
		list(argv[3], files, paths);
		start = now();
		open_times(times, paths, files);
	} else if (argc == 4 && !strcmp(argv[1], "exec")) {
		start = now();
		exec_times(times, argv[3]);
	} else if (argc == 4 && !strcmp(argv[1], "connect")) {
		start = now();
		connect_times(times, atoi(argv[3]));
	} else {
		fprintf(stderr, "load: see its source for what it does\n");
		return 2;
	}
	printf("%lld\n", now() - start);
	return 0;
}
