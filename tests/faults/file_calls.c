// Loaded before the C library (LD_PRELOAD): counts the calls that change files under a folder, kills the process at
// the n-th of them (in the middle of it, if it writes), or lets it and all later ones fail. It sees what Python, torch
// and Rust libraries do alike.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NOTHING, KILL, FAIL };
enum { MAX_FD = 4096, MAX_LOG = 1 << 16 };
static char folder[4096];
static size_t folder_length;
static int at, what, error_number, count;
static char inside_fd[MAX_FD];
static char calls[MAX_LOG];
static size_t logged;

// What follows under `path` is counted from 1; at call `n` happens `fault`, with `code` as errno if it is to fail.
void faults_arm(const char* path, int n, int fault, int code) {
  snprintf(folder, sizeof folder, "%s", path);
  folder_length = strlen(folder);
  at = n, what = fault, error_number = code, count = 0, logged = 0;
  calls[0] = 0;
  memset(inside_fd, 0, sizeof inside_fd);
}

int faults_count(void) { return count; }

// The calls so far, one a line: name and path or number of the file.
const char* faults_calls(void) { return calls; }

static int inside(int dir, const char* path) {
  if (!folder_length || !path) return 0;
  if (path[0] != '/' && dir != AT_FDCWD) return dir >= 0 && dir < MAX_FD && inside_fd[dir];
  return !strncmp(path, folder, folder_length) && (path[folder_length] == '/' || !path[folder_length]);
}

// Counts a call; true if it must fail. `frees`: it needs no space, so that it works on a full disk.
static int struck(const char* name, const char* path, int frees) {
  ++count;
  int added = snprintf(calls + logged, MAX_LOG - logged, "%s %s\n", name, path);
  if (added > 0 && logged + (size_t)added < MAX_LOG) logged += (size_t)added;
  if (what == KILL && count == at) kill(getpid(), SIGKILL);
  if (what != FAIL || count < at || (frees && error_number == ENOSPC)) return 0;
  errno = error_number;
  return 1;
}

#define REAL(type, name, ...)       \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static int opened(int fd, int dir, const char* path) {
  if (fd >= 0 && fd < MAX_FD) inside_fd[fd] = (char)inside(dir, path);
  return fd;
}

static int changes(int flags) { return (flags & (O_CREAT | O_TRUNC)) || (flags & O_ACCMODE) != O_RDONLY; }

#define MODE(flags, last)                \
  mode_t mode = 0;                       \
  if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list rest;                        \
    va_start(rest, last);                \
    mode = va_arg(rest, mode_t);         \
    va_end(rest);                        \
  }

#define OPEN(name)                                                                      \
  int name(const char* path, int flags, ...) {                                          \
    MODE(flags, flags)                                                                  \
    REAL(int, name, const char*, int, ...);                                             \
    if (inside(AT_FDCWD, path) && changes(flags) && struck("open", path, 0)) return -1; \
    return opened(real(path, flags, mode), AT_FDCWD, path);                             \
  }
#define OPENAT(name)                                                               \
  int name(int dir, const char* path, int flags, ...) {                            \
    MODE(flags, flags)                                                             \
    REAL(int, name, int, const char*, int, ...);                                   \
    if (inside(dir, path) && changes(flags) && struck("open", path, 0)) return -1; \
    return opened(real(dir, path, flags, mode), dir, path);                        \
  }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

static int held(int fd) { return fd >= 0 && fd < MAX_FD && inside_fd[fd]; }

int close(int fd) {
  REAL(int, close, int);
  if (held(fd)) inside_fd[fd] = 0;
  return real(fd);
}

ssize_t write(int fd, const void* bytes, size_t size) {
  REAL(ssize_t, write, int, const void*, size_t);
  if (!held(fd)) return real(fd, bytes, size);
  if (what == KILL && count + 1 == at && size > 1) real(fd, bytes, size / 2);
  return struck("write", "", 0) ? -1 : real(fd, bytes, size);
}

#define ON_FD(name, signature, ...)                                   \
  int name signature {                                                \
    REAL(int, name, FIRST signature);                                 \
    return held(fd) && struck(#name, "", 0) ? -1 : real(__VA_ARGS__); \
  }
#define FIRST(...) __VA_ARGS__
ON_FD(fsync, (int fd), fd)
ON_FD(fdatasync, (int fd), fd)
ON_FD(fchmod, (int fd, mode_t mode), fd, mode)
ON_FD(ftruncate, (int fd, off_t size), fd, size)
ON_FD(ftruncate64, (int fd, off64_t size), fd, size)

ssize_t pwrite64(int fd, const void* bytes, size_t size, off64_t place) {
  REAL(ssize_t, pwrite64, int, const void*, size_t, off64_t);
  return held(fd) && struck("pwrite", "", 0) ? -1 : real(fd, bytes, size, place);
}

#define ON_PATH(name, frees, signature, ...)                                              \
  int name signature {                                                                    \
    REAL(int, name, FIRST signature);                                                     \
    return inside(AT_FDCWD, path) && struck(#name, path, frees) ? -1 : real(__VA_ARGS__); \
  }
ON_PATH(unlink, 1, (const char* path), path)
ON_PATH(rmdir, 1, (const char* path), path)
ON_PATH(mkdir, 0, (const char* path, mode_t mode), path, mode)
ON_PATH(chmod, 1, (const char* path, mode_t mode), path, mode)
ON_PATH(rename, 0, (const char* path, const char* to), path, to)

int unlinkat(int dir, const char* path, int flags) {
  REAL(int, unlinkat, int, const char*, int);
  return inside(dir, path) && struck("unlink", path, 1) ? -1 : real(dir, path, flags);
}

int renameat(int dir, const char* path, int to_dir, const char* to) {
  REAL(int, renameat, int, const char*, int, const char*);
  return inside(dir, path) && struck("rename", path, 0) ? -1 : real(dir, path, to_dir, to);
}
