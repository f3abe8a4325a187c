/* How fast can this machine read memory? The bound of every decode step.
 *
 *   cc -O3 -march=native -pthread read_bandwidth.c -o read_bandwidth
 *   ./read_bandwidth [threads = 2] [MiB = 1024] [passes = 15]
 *
 * Every thread streams through its own share of one buffer with the widest vectors the compiler
 * was allowed to use. Prints the median and the best pass in GB/s (10^9 bytes). */

#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define MAX_THREADS 256
#define CHUNK 4096 /* bytes: the shares are multiples of it */

struct share {
    pthread_t thread;
    const unsigned char *start;
    size_t bytes;
    int passes;
    double *began, *ended; /* seconds, one of each per pass */
    uint64_t sum;          /* kept, so that no load can be optimised away */
};

static pthread_barrier_t barrier;

/* XOR of all words; eight independent accumulators keep enough loads in flight. */
static uint64_t read_all(const unsigned char *start, size_t bytes)
{
    uint64_t words[8] = {0};
    uint64_t sum = 0;
#if defined(__AVX512F__)
    __m512i sums[8];
    for (int i = 0; i < 8; i++)
        sums[i] = _mm512_setzero_si512();
    for (const unsigned char *p = start; p < start + bytes; p += sizeof sums)
        for (int i = 0; i < 8; i++)
            sums[i] = _mm512_xor_si512(sums[i], _mm512_load_si512(p + 64 * i));
    for (int i = 1; i < 8; i++)
        sums[0] = _mm512_xor_si512(sums[0], sums[i]);
    memcpy(words, &sums[0], sizeof sums[0]);
#elif defined(__AVX2__)
    __m256i sums[8];
    for (int i = 0; i < 8; i++)
        sums[i] = _mm256_setzero_si256();
    for (const unsigned char *p = start; p < start + bytes; p += sizeof sums)
        for (int i = 0; i < 8; i++)
            sums[i] = _mm256_xor_si256(sums[i], _mm256_load_si256((const __m256i *)(p + 32 * i)));
    for (int i = 1; i < 8; i++)
        sums[0] = _mm256_xor_si256(sums[0], sums[i]);
    memcpy(words, &sums[0], sizeof sums[0]);
#else
    const uint64_t *p = (const uint64_t *)start;
    for (size_t i = 0; i < bytes / 8; i += 8)
        for (int j = 0; j < 8; j++)
            words[j] ^= p[i + j];
#endif
    for (int i = 0; i < 8; i++)
        sum ^= words[i];
    return sum;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void *run(void *argument)
{
    struct share *share = argument;
    for (int pass = 0; pass < share->passes; pass++) {
        pthread_barrier_wait(&barrier);
        share->began[pass] = now();
        share->sum ^= read_all(share->start, share->bytes);
        share->ended[pass] = now();
    }
    return NULL;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 2;
    size_t mebibytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 1024;
    int passes = argc > 3 ? atoi(argv[3]) : 15;
    if (threads < 1 || threads > MAX_THREADS || mebibytes < 1 || passes < 1) {
        fprintf(stderr, "usage: %s [threads, at most %d] [MiB] [passes]\n", argv[0], MAX_THREADS);
        return 2;
    }

    size_t share_bytes = (mebibytes << 20) / threads / CHUNK * CHUNK;
    size_t bytes = share_bytes * threads;
    unsigned char *buffer = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    madvise(buffer, bytes, MADV_HUGEPAGE); /* only a wish: works without it */
    memset(buffer, 0x5a, bytes);

    double *times = calloc((size_t)(2 * threads + 1) * passes, sizeof *times);
    if (times == NULL) {
        perror("calloc");
        return 1;
    }
    struct share shares[MAX_THREADS] = {0};
    pthread_barrier_init(&barrier, NULL, threads);
    for (int i = 0; i < threads; i++) {
        shares[i] = (struct share){
            .start = buffer + i * share_bytes,
            .bytes = share_bytes,
            .passes = passes,
            .began = times + (size_t)(2 * i + 1) * passes,
            .ended = times + (size_t)(2 * i + 2) * passes,
        };
        if (pthread_create(&shares[i].thread, NULL, run, &shares[i]) != 0) {
            fputs("cannot start a thread\n", stderr);
            return 1;
        }
    }
    uint64_t sum = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(shares[i].thread, NULL);
        sum ^= shares[i].sum;
    }

    /* A pass lasts from the first thread's start to the last one's end. */
    double *seconds = times;
    for (int pass = 0; pass < passes; pass++) {
        double began = shares[0].began[pass], ended = shares[0].ended[pass];
        for (int i = 1; i < threads; i++) {
            if (shares[i].began[pass] < began)
                began = shares[i].began[pass];
            if (shares[i].ended[pass] > ended)
                ended = shares[i].ended[pass];
        }
        seconds[pass] = ended - began;
    }
    qsort(seconds, passes, sizeof *seconds, ascending);
    printf("%d threads, %zu MiB: median %.1f GB/s, best %.1f GB/s (check %llx)\n", threads, mebibytes,
           bytes / seconds[passes / 2] / 1e9, bytes / seconds[0] / 1e9, (unsigned long long)sum);
    return 0;
}
