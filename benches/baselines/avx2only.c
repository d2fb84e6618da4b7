// Makes a process see a CPU with AVX2 and nothing after it: no AVX-512, no VNNI, no AMX.
// That is the CPU which AWS Lambda documents for x86, on a machine that has more.
//
//     cc -O2 -shared -fPIC -o avx2only.so avx2only.c && LD_PRELOAD=./avx2only.so COMMAND
//
// The kernel is asked to make CPUID fault; the handler executes it, clears the feature bits and steps over it.
// Where the CPU cannot do that (CPUID faulting; AMD's often cannot, nor can many guests), a program or library whose
// CPUID instructions trap_cpuid.py has replaced by breakpoints does as well: AVX2ONLY_TRAPS=1 says that it is one. Without
// that the process ends with 99.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_CPUID 0x1012  // absent from older headers
#define BIT(n) (1u << (n))

struct registers { uint32_t a, b, c, d; };

static struct sigaction previous;

static long allow_cpuid(long allowed) { return syscall(SYS_arch_prctl, ARCH_CPUID, allowed); }

static struct registers cpuid(uint32_t leaf, uint32_t subleaf) {
    struct registers r;
    allow_cpuid(1);  // fails where nothing was forbidden, which is as well
    __asm__ volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(subleaf));
    allow_cpuid(0);
    return r;
}

static struct registers masked(uint32_t leaf, uint32_t subleaf) {
    struct registers r = cpuid(leaf, subleaf);
    if (leaf == 7 && subleaf == 0) {
        // AVX-512: F, DQ, IFMA, PF, ER, CD, BW, VL
        r.b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
        // AVX-512: VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ
        r.c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
        // AVX-512: 4VNNIW, 4FMAPS, VP2INTERSECT, FP16; AMX: BF16, TILE, INT8
        r.d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(23) | BIT(22) | BIT(24) | BIT(25));
    }
    if (leaf == 7 && subleaf == 1) {
        // AVX-VNNI, AVX-512 BF16, AMX FP16, AVX-IFMA
        r.a &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23));
        // AVX-VNNI-INT8, AVX-NE-CONVERT, AMX COMPLEX, AVX-VNNI-INT16, AVX10
        r.d &= ~(BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19));
    }
    // AMX's tiles, its multiplication, AVX10
    if (leaf == 0x1d || leaf == 0x1e || leaf == 0x24) r = (struct registers){0, 0, 0, 0};
    return r;
}

// Puts what CPUID would say into the registers and steps over `length` bytes.
static void answer(greg_t *at, int length) {
    struct registers r = masked((uint32_t)at[REG_RAX], (uint32_t)at[REG_RCX]);
    at[REG_RAX] = r.a, at[REG_RBX] = r.b, at[REG_RCX] = r.c, at[REG_RDX] = r.d;
    at[REG_RIP] += length;
}

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    greg_t *at = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)at[REG_RIP];
    if (code[0] != 0x0f || code[1] != 0xa2) {
        // Another fault: it happens again, with the handler that it was meant for.
        sigaction(SIGSEGV, &previous, NULL);
        return;
    }
    answer(at, 2);
}

// Behind the breakpoint, which takes the first of CPUID's two bytes, is a byte of its own.
static void on_trap(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    greg_t *at = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)at[REG_RIP];
    if (code[-1] != 0xcc || code[0] != 0xa2) abort();
    answer(at, 1);
}

__attribute__((constructor)) static void start(void) {
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &fault, &previous);
    sigaction(SIGTRAP, &trap, NULL);
    if (allow_cpuid(0) != 0 && !getenv("AVX2ONLY_TRAPS")) {
        perror("avx2only: CPUID faulting");
        _exit(99);
    }
}
