// libssh (KDE, QEMU, libvirt, Ansible's own connection) as a client of the proxy, keys renewed at 1 MiB: PORT HOME FOLDER.
#include <fcntl.h>
#include <libssh/libssh.h>
#include <libssh/sftp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGE = 8 << 20 };

static ssh_session session;
static char err[256];

static void check(int good, const char *what) {
  if (good) return;
  fprintf(stderr, "%s: %s\n", what, ssh_get_error(session));
  exit(1);
}

static void *read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  void *bytes = malloc(LARGE + 1);
  check(file && bytes, path);
  *size = fread(bytes, 1, LARGE + 1, file);
  fclose(file);
  return bytes;
}

// Runs a command, writes all its input while it reads, and gives how much it wrote; what is on standard error is kept.
static size_t run(const char *command, int terminal, const char *in, size_t in_size, char *out, size_t size, int *status) {
  ssh_channel channel = ssh_channel_new(session);
  size_t sent = 0, got = 0, got_err = 0;
  check(!ssh_channel_open_session(channel), "open");
  if (terminal) check(!ssh_channel_request_pty_size(channel, "xterm", 111, 33), "pty");
  check(!ssh_channel_request_exec(channel, command), "exec");
  if (!in_size && !terminal) ssh_channel_send_eof(channel);
  while (!ssh_channel_is_eof(channel)) {
    if (sent < in_size) {
      size_t part = in_size - sent < 32000 ? in_size - sent : 32000;
      check(ssh_channel_write(channel, in + sent, part) == (int)part, "write");
      sent += part;
      if (sent == in_size) ssh_channel_send_eof(channel);
    }
    int count = ssh_channel_read_timeout(channel, out + got, size - got, 0, sent < in_size ? 0 : 20);
    check(count >= 0, "read");
    got += count;
    count = ssh_channel_read_nonblocking(channel, err + got_err, sizeof err - 1 - got_err, 1);
    if (count > 0) got_err += count;
  }
  err[got_err] = 0;
  *status = ssh_channel_get_exit_status(channel);
  ssh_channel_free(channel);
  return got;
}

int main(int count, char **arguments) {
  check(count == 4, "PORT HOME FOLDER");
  int port = atoi(arguments[1]), status, none = 0;
  const char *home = arguments[2], *folder = arguments[3];
  uint64_t renewed = 1 << 20;
  char path[4096], put[4096];
  ssh_key key, certificate;

  session = ssh_new();
  ssh_options_set(session, SSH_OPTIONS_HOST, "127.0.0.1");
  ssh_options_set(session, SSH_OPTIONS_PORT, &port);
  ssh_options_set(session, SSH_OPTIONS_USER, "root+web-1");
  ssh_options_set(session, SSH_OPTIONS_PROCESS_CONFIG, &none);
  ssh_options_set(session, SSH_OPTIONS_REKEY_DATA, &renewed);
  check(!ssh_connect(session), "connect");
  snprintf(path, sizeof path, "%s/id", home);
  check(!ssh_pki_import_privkey_file(path, NULL, NULL, NULL, &key), "key");
  snprintf(path, sizeof path, "%s/id-cert.pub", home);
  check(!ssh_pki_import_cert_file(path, &certificate), "certificate");
  check(!ssh_pki_copy_cert_to_privkey(certificate, key), "certificate of another key");
  check(ssh_userauth_publickey(session, NULL, key) == SSH_AUTH_SUCCESS, "login");

  char said[256];
  int size = run("echo out; echo err >&2; exit 42", 0, NULL, 0, said, sizeof said, &status);
  printf("exec %.*s %.*s %d\n", size - 1, said, (int)strcspn(err, "\n"), err, status);

  size_t whole, back = 0;
  snprintf(path, sizeof path, "%s/file", folder);
  char *data = read_file(path, &whole), *got = malloc(LARGE);
  back = run("cat", 0, data, 2000000, got, LARGE, &status);
  printf("bytes %zu\n", memcmp(data, got, 2000000) ? 0 : back);

  ssh_channel channels[8];
  for (int n = 0; n < 8; n++) {
    snprintf(said, sizeof said, "read x; echo %d", n);
    channels[n] = ssh_channel_new(session);
    check(!ssh_channel_open_session(channels[n]) && !ssh_channel_request_exec(channels[n], said), "channels");
  }
  int right = 0;
  for (int n = 0; n < 8; n++) {
    check(ssh_channel_write(channels[n], "go\n", 3) == 3, "go");
    size = ssh_channel_read(channels[n], said, sizeof said, 0);
    right += size == 2 && said[0] == '0' + n;
    ssh_channel_free(channels[n]);
  }
  printf("channels %d\n", right);
  size = run("stty size", 1, NULL, 0, said, sizeof said, &status);
  printf("terminal %.*s\n", (int)strcspn(said, "\r"), said);

  sftp_session sftp = sftp_new(session);
  check(sftp && !sftp_init(sftp), "sftp");
  snprintf(put, sizeof put, "%s/put", folder);
  sftp_file file = sftp_open(sftp, put, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  check(file != NULL, "put");
  for (size_t at = 0; at < whole; at += 30000) {
    size_t part = whole - at < 30000 ? whole - at : 30000;
    check(sftp_write(file, data + at, part) == (ssize_t)part, "write");
  }
  sftp_close(file);
  file = sftp_open(sftp, put, O_RDONLY, 0);
  ssize_t part;
  for (back = 0; (part = sftp_read(file, got + back, LARGE - back)) > 0;) back += part;
  sftp_close(file);
  int same = back == whole && !memcmp(data, got, whole), listed = 0;
  snprintf(path, sizeof path, "%s/missing", folder);
  check(!sftp_open(sftp, path, O_RDONLY, 0), "missing");
  int missing = sftp_get_error(sftp);
  sftp_dir directory = sftp_opendir(sftp, folder);
  for (sftp_attributes entry; (entry = sftp_readdir(sftp, directory));) {
    listed |= !strcmp(entry->name, "put");
    sftp_attributes_free(entry);
  }
  sftp_closedir(directory);
  printf("files %s %d %s\n", same ? "true" : "false", missing, listed ? "true" : "false");
  sftp_free(sftp);
  ssh_disconnect(session);
  return 0;
}
