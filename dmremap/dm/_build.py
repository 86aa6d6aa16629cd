# SPDX-License-Identifier: GPL-2.0-only
"""Build dmremap.dm._libdm: libdevmapper through cffi in API mode.

libdevmapper and not raw ioctls, because udev cookies, name mangling and the fall-back for systems
without udevd come right with it. The shim below holds what Python cannot do: the variadic log
function, and semaphores of System V. No ffi.callback: it needs memory that is writable and
executable.
"""

from cffi import FFI

CDEF = r"""
#define DM_DEVICE_CREATE ...
#define DM_DEVICE_RELOAD ...
#define DM_DEVICE_REMOVE ...
#define DM_DEVICE_SUSPEND ...
#define DM_DEVICE_RESUME ...
#define DM_DEVICE_INFO ...
#define DM_DEVICE_DEPS ...
#define DM_DEVICE_STATUS ...
#define DM_DEVICE_TABLE ...
#define DM_DEVICE_LIST ...
#define DM_DEVICE_CLEAR ...
#define DM_DEVICE_LIST_VERSIONS ...
#define DM_DEVICE_TARGET_MSG ...
#define DM_ADD_NODE_ON_RESUME ...
#define SO_RCVBUFFORCE ...

struct dm_task;
struct dm_info {
    int exists;
    int suspended;
    int live_table;
    int inactive_table;
    int32_t open_count;
    uint32_t event_nr;
    uint32_t major;
    uint32_t minor;
    int read_only;
    int32_t target_count;
    int deferred_remove;
    ...;
};
struct dm_deps { uint32_t count; uint32_t filler; uint64_t device[]; };
struct dm_names { uint64_t dev; uint32_t next; char name[]; ...; };
struct dm_versions { uint32_t next; uint32_t version[3]; char name[]; };

struct dm_task *dm_task_create(int type);
void dm_task_destroy(struct dm_task *dmt);
int dm_task_run(struct dm_task *dmt);
int dm_task_get_errno(struct dm_task *dmt);
int dm_task_set_name(struct dm_task *dmt, const char *name);
int dm_task_set_uuid(struct dm_task *dmt, const char *uuid);
int dm_task_set_ro(struct dm_task *dmt);
int dm_task_set_add_node(struct dm_task *dmt, int add_node);
int dm_task_set_message(struct dm_task *dmt, const char *message);
int dm_task_set_sector(struct dm_task *dmt, uint64_t sector);
int dm_task_set_cookie(struct dm_task *dmt, uint32_t *cookie, uint16_t flags);
int dm_task_no_flush(struct dm_task *dmt);
int dm_task_no_open_count(struct dm_task *dmt);
int dm_task_skip_lockfs(struct dm_task *dmt);
int dm_task_query_inactive_table(struct dm_task *dmt);
int dm_task_retry_remove(struct dm_task *dmt);
int dm_task_deferred_remove(struct dm_task *dmt);
int dm_task_add_target(struct dm_task *dmt, uint64_t start, uint64_t size,
                       const char *ttype, const char *params);
int dm_task_get_info(struct dm_task *dmt, struct dm_info *info);
const char *dm_task_get_name(const struct dm_task *dmt);
const char *dm_task_get_uuid(const struct dm_task *dmt);
const char *dm_task_get_message_response(struct dm_task *dmt);
struct dm_deps *dm_task_get_deps(struct dm_task *dmt);
struct dm_names *dm_task_get_names(struct dm_task *dmt);
struct dm_versions *dm_task_get_versions(struct dm_task *dmt);
void *dm_get_next_target(struct dm_task *dmt, void *next, uint64_t *start, uint64_t *length,
                         char **target_type, char **params);
int dm_mknodes(const char *name);
void dm_task_update_nodes(void);
int dm_driver_version(char *version, size_t size);
int dm_get_library_version(char *version, size_t size);

int dm_udev_get_sync_support(void);
int dm_udev_complete(uint32_t cookie);
int dm_udev_wait_immediate(uint32_t cookie, int *ready);

void dmr_shim_init(void);
size_t dmr_take_log(char *to, size_t size);
int dmr_make_cookie(uint32_t cookie);
int dmr_forget_cookie(uint32_t cookie, int64_t since, int64_t until);
int dmr_arm_poll(int fd);
"""

SOURCE = r"""
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <linux/dm-ioctl.h>
#include <libdevmapper.h>

/* What libdevmapper says, kept for the error that is raised. Calls are serialised in Python. */
static char log_text[4096];
static size_t log_len;

static void log_line(int level, const char *file, int line, int class, const char *f, ...)
{
    int room = sizeof(log_text) - log_len, n;
    va_list ap;

    (void)file;
    (void)line;
    (void)class;
    if ((level & 7) > 4 || room < 3) /* 4 is _LOG_WARN */
        return;
    va_start(ap, f);
    n = vsnprintf(log_text + log_len, room - 1, f, ap);
    va_end(ap);
    if (n < 0)
        return;
    log_len += n < room - 1 ? n : room - 2;
    log_text[log_len++] = '\n';
}

static void dmr_shim_init(void)
{
    dm_log_with_errno_init(log_line);
}

static size_t dmr_take_log(char *to, size_t size)
{
    size_t n = log_len < size ? log_len : size;

    memcpy(to, log_text, n);
    log_len = 0;
    return n;
}

/*
 * Make the semaphore of a cookie, as libdevmapper does it. That would choose its number itself, so
 * that it could not be written down before there is a semaphore. Zero or an errno.
 */
static int dmr_make_cookie(uint32_t cookie)
{
    /* All of it: the C library takes what is passed for as much. */
    union { int val; struct semid_ds *buf; unsigned short *array; } one = { .val = 1 };
    int id = semget((key_t)cookie, 1, 0600 | IPC_CREAT | IPC_EXCL);
    int err = 0;

    if (id < 0)
        return errno;
    if (semctl(id, 0, SETVAL, one) < 0) {
        err = errno;
        semctl(id, 0, IPC_RMID);
    }
    return err;
}

/*
 * Destroy the semaphore of a cookie, whoever waits for it, if it was made in a span of time, in
 * seconds since 1970: libdevmapper sets its value once, when it makes it. Zero or an errno.
 */
static int dmr_forget_cookie(uint32_t cookie, int64_t since, int64_t until)
{
    struct semid_ds about;
    union { struct semid_ds *buf; } to = { &about };
    int id = semget((key_t)cookie, 1, 0);

    if (id < 0 || semctl(id, 0, IPC_STAT, to) < 0)
        return errno;
    if (about.sem_ctime < since || about.sem_ctime > until)
        return ESTALE;
    return semctl(id, 0, IPC_RMID) < 0 ? errno : 0;
}

/*
 * After this a poll() of the control node fd reports any event since. Zero or an errno.
 */
static int dmr_arm_poll(int fd)
{
    struct dm_ioctl arg;

    memset(&arg, 0, sizeof(arg));
    arg.version[0] = DM_VERSION_MAJOR;
    arg.data_size = sizeof(arg);
    return ioctl(fd, DM_DEV_ARM_POLL, &arg) < 0 ? errno : 0;
}
"""

builder = FFI()
builder.cdef(CDEF)
builder.set_source("dmremap.dm._libdm", SOURCE, libraries=["devmapper"])
