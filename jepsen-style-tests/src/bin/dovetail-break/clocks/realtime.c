/* The wall clock of one process, ahead of the machine's by what a file says: loaded before
 * the C library, so that the process needs to know nothing of it. What counts up from the
 * start of the machine is left alone, and a deadline by the wall clock is handed on as the
 * machine's clock has it: after a true jump, too, a wait that began before it ends in time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct clock {
    _Atomic int64_t ahead_ms;
    /* How often another time than the machine's was told. */
    _Atomic uint64_t told;
};

static struct clock *shared;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("WALL_CLOCK");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        _exit(97);
    void *at = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (at == MAP_FAILED)
        _exit(97);
    shared = at;
}

static int64_t ahead_ms(void) {
    return shared ? atomic_load(&shared->ahead_ms) : 0;
}

static void add(struct timespec *time, int64_t ms) {
    int64_t nanos = time->tv_nsec + ms % 1000 * 1000000;
    time->tv_sec += ms / 1000 + (nanos < 0 ? -1 : nanos / 1000000000);
    time->tv_nsec = nanos < 0 ? nanos + 1000000000 : nanos % 1000000000;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, time);
    int64_t ms = ahead_ms();
    if (!failed && ms && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        add(time, ms);
        atomic_fetch_add(&shared->told, 1);
    }
    return failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

/* A condition's clock cannot be asked for, but no machine has run for thirty years. */
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!real)
        real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!real)
        real = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    struct timespec machine = *until;
    if (machine.tv_sec > 1000000000)
        add(&machine, -ahead_ms());
    return real(condition, mutex, &machine);
}

int pthread_cond_clockwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           clockid_t clock, const struct timespec *restrict until) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "pthread_cond_clockwait");
    struct timespec machine = *until;
    if (clock == CLOCK_REALTIME)
        add(&machine, -ahead_ms());
    return real(condition, mutex, clock, &machine);
}
