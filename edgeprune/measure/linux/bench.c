/* The model as a Linux program: outputs of samples in a file, and how long each inference takes.
 * SPDX-License-Identifier: 0BSD
 *
 *     bench INPUTS OUTPUTS [--warmup W] [--runs N]
 *
 * INPUTS holds int8 samples back to back, EDGEPRUNE_MODEL_INPUT_BYTES each. Every sample runs once and its output goes to
 * OUTPUTS, EDGEPRUNE_MODEL_OUTPUT_BYTES each. Then come W runs that are not timed and N that are (20 and 200 unless told),
 * over the samples in turn, each between two readings of CLOCK_MONOTONIC_RAW: the clock that no time service adjusts. One
 * line of JSON on stdout: {"samples": n, "warmup": W, "ns": [N integers]}. With --runs 0 there is no warm-up either.
 *
 * Any fault is one line on stderr and exit code 2; OUTPUTS is then of no meaning. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#define _FILE_OFFSET_BITS 64
#include "model.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FAULT = 2, MOST_RUNS = 10 * 1000 * 1000 };

typedef struct {
    const char *inputs;
    const char *outputs;
    long warmup;
    long runs;
} order;

typedef struct {
    int8_t *values;
    size_t count;
} samples;

static EDGEPRUNE_MODEL_ARENA(arena);
static int8_t output[EDGEPRUNE_MODEL_OUTPUT_BYTES];

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    va_end(values);
    exit(FAULT);
}

static long read_count(const char *option, const char *text)
{
    char *end;
    long count;
    if (text == NULL) {
        fail("%s: a number is missing behind it", option);
    }
    errno = 0;
    count = strtol(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || count > MOST_RUNS) {
        fail("%s %s: a whole number from 0 to %d is expected", option, text, MOST_RUNS);
    }
    return count;
}

static order read_order(int count, char **words)
{
    order found = {NULL, NULL, 20, 200};
    for (int i = 1; i < count; i++) {
        if (strcmp(words[i], "--warmup") == 0) {
            found.warmup = read_count(words[i], words[i + 1]); /* words[count] is NULL: C99 5.1.2.2.1 */
            i++;
        } else if (strcmp(words[i], "--runs") == 0) {
            found.runs = read_count(words[i], words[i + 1]);
            i++;
        } else if (words[i][0] == '-' && words[i][1] == '-') {
            fail("%s is not known; allowed: --warmup W, --runs N", words[i]);
        } else if (found.inputs == NULL) {
            found.inputs = words[i];
        } else if (found.outputs == NULL) {
            found.outputs = words[i];
        } else {
            fail("%s: one word too many; bench INPUTS OUTPUTS [--warmup W] [--runs N]", words[i]);
        }
    }
    if (found.outputs == NULL) {
        fail("two files are expected: bench INPUTS OUTPUTS [--warmup W] [--runs N]");
    }
    return found;
}

/* Memory, or NULL. Straight from the kernel: an allocator would be most of this program. */
static void *allocate(uintmax_t size)
{
    void *memory = MAP_FAILED;
    if (size <= SIZE_MAX / 2) {
        memory = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    return memory == MAP_FAILED ? NULL : memory;
}

/* The whole file, in as many reads as it takes. */
static samples read_samples(const char *path)
{
    samples found = {NULL, 0};
    struct stat status;
    size_t size, done = 0;
    const int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &status) != 0) {
        fail("%s: %s", path, strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) {
        fail("%s: a plain file of samples is expected", path);
    }
    if (status.st_size == 0) {
        fail("%s: it is empty; at least one sample of %d bytes is expected", path, EDGEPRUNE_MODEL_INPUT_BYTES);
    }
    if (status.st_size % EDGEPRUNE_MODEL_INPUT_BYTES != 0) {
        fail("%s: %" PRIdMAX " bytes are not a whole number of samples of %d bytes", path, (intmax_t)status.st_size,
             EDGEPRUNE_MODEL_INPUT_BYTES);
    }
    found.values = allocate((uintmax_t)status.st_size);
    if (found.values == NULL) {
        fail("%s: %" PRIdMAX " bytes are more than there is memory for", path, (intmax_t)status.st_size);
    }
    size = (size_t)status.st_size;
    while (done < size) {
        const ssize_t got = read(file, found.values + done, size - done);
        if (got > 0) {
            done += (size_t)got;
        } else if (got == 0) {
            fail("%s: it ended after %zu of %zu bytes", path, done, size);
        } else if (errno != EINTR) {
            fail("%s: %s", path, strerror(errno));
        }
    }
    close(file);
    found.count = size / EDGEPRUNE_MODEL_INPUT_BYTES;
    return found;
}

static void infer(const samples *all, size_t sample)
{
    if (edgeprune_model_run(all->values + sample * EDGEPRUNE_MODEL_INPUT_BYTES, output, arena) != 0) {
        fail("the model failed on sample %zu", sample);
    }
}

static void write_output(int file, const char *path)
{
    size_t done = 0;
    while (done < sizeof output) {
        const ssize_t put = write(file, output + done, sizeof output - done);
        if (put >= 0) {
            done += (size_t)put;
        } else if (errno != EINTR) {
            fail("%s: %s", path, strerror(errno));
        }
    }
}

static void write_outputs(const samples *all, const char *path)
{
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (file < 0) {
        fail("%s: %s", path, strerror(errno));
    }
    for (size_t sample = 0; sample < all->count; sample++) {
        infer(all, sample);
        write_output(file, path);
    }
    if (close(file) != 0) { /* network file systems tell of a full disk here */
        fail("%s: %s", path, strerror(errno));
    }
}

static int64_t read_clock(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC_RAW, &now) != 0) {
        fail("this kernel has no CLOCK_MONOTONIC_RAW: %s", strerror(errno));
    }
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Nanoseconds of each run. */
static int64_t *time_runs(const samples *all, long warmup, long runs)
{
    size_t sample = 0;
    int64_t *times = allocate((uintmax_t)(runs + 1) * sizeof *times);
    if (times == NULL) {
        fail("--runs %ld: there is no memory for so many times", runs);
    }
    for (long run = -warmup; run < runs; run++) {
        const int64_t start = read_clock();
        int64_t end;
        infer(all, sample);
        end = read_clock();
        if (run >= 0) {
            times[run] = end - start;
        }
        sample = sample + 1 < all->count ? sample + 1 : 0;
    }
    return times;
}

int main(int count, char **words)
{
    const order wanted = read_order(count, words);
    const samples all = read_samples(wanted.inputs);
    const long warmup = wanted.runs > 0 ? wanted.warmup : 0;
    int64_t *times;
    write_outputs(&all, wanted.outputs);
    times = time_runs(&all, warmup, wanted.runs);
    printf("{\"samples\": %zu, \"warmup\": %ld, \"ns\": [", all.count, warmup);
    for (long run = 0; run < wanted.runs; run++) {
        printf("%s%" PRId64, run > 0 ? ", " : "", times[run]);
    }
    puts("]}");
    if (fflush(stdout) != 0) {
        fail("stdout: %s", strerror(errno));
    }
    return 0;
}
