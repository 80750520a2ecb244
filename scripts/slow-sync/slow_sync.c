/* Counts the syncs of a program and can make each slower. Loaded with LD_PRELOAD; scripts/bench builds and uses it.
 *
 *   SLOW_SYNC_MS      milliseconds added to every fsync and fdatasync, after the real one; 0 without it
 *   SYNC_COUNT_FILE   file that holds the counters while the program runs, three 64-bit integers of the machine's
 *                     byte order: all syncs, those of files whose name contains SYNC_COUNT_MATCH, and the nanoseconds
 *                     that the real syncs took
 *   SYNC_COUNT_MATCH  see there
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct counters {
    uint64_t all, matching, nanoseconds;
};

static struct counters private_counters;
static struct counters *counters = &private_counters;
static const char *match;
static struct timespec delay;
static int (*real_fsync)(int), (*real_fdatasync)(int);

__attribute__((constructor)) static void start(void)
{
    const char *ms = getenv("SLOW_SYNC_MS"), *path = getenv("SYNC_COUNT_FILE");
    double added = ms ? atof(ms) : 0;

    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    match = getenv("SYNC_COUNT_MATCH");
    delay.tv_sec = (time_t)(added / 1e3);
    delay.tv_nsec = (long)((added - 1e3 * delay.tv_sec) * 1e6);
    if (path) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        void *shared = MAP_FAILED;
        if (fd >= 0 && ftruncate(fd, sizeof *counters) == 0)
            shared = mmap(NULL, sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (shared == MAP_FAILED) {
            perror(path);
            abort();
        }
        close(fd);
        counters = shared;
    }
}

static int counted(int (*real)(int), int fd)
{
    char link[32], name[4096];
    struct timespec before, after, left = delay;
    ssize_t length = -1;
    int result, error;

    clock_gettime(CLOCK_MONOTONIC, &before);
    result = real(fd);
    error = errno;
    clock_gettime(CLOCK_MONOTONIC, &after);
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
    if (match) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        length = readlink(link, name, sizeof name - 1);
    }
    if (length > 0) {
        name[length] = '\0';
        if (strstr(name, match))
            __atomic_fetch_add(&counters->matching, 1, __ATOMIC_RELAXED);
    }
    __atomic_fetch_add(&counters->all, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&counters->nanoseconds,
                       (uint64_t)((after.tv_sec - before.tv_sec) * 1000000000L + after.tv_nsec - before.tv_nsec),
                       __ATOMIC_RELAXED);
    errno = error;
    return result;
}

int fsync(int fd)
{
    return counted(real_fsync, fd);
}

int fdatasync(int fd)
{
    return counted(real_fdatasync, fd);
}
