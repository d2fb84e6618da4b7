// Hides instruction sets newer than AVX2 (AVX-512, VNNI, AMX) from a process.
// This simulates the x86 CPUs that AWS Lambda documents.
//
//     cc -O2 -shared -fPIC -o avx2only.so avx2only.c && LD_PRELOAD=./avx2only.so COMMAND
//
// It uses CPUID faulting: the signal handler executes CPUID, clears the feature bits and skips the instruction.
// Many AMD CPUs and virtual machines do not support CPUID faulting. There, use a program or library in which trap_cpuid.py
// has replaced the CPUID instructions by breakpoints, and set AVX2ONLY_TRAPS=1. Otherwise the process exits with code 99.
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

struct cpuid_result { uint32_t a, b, c, d; };

static struct sigaction previous;

static long allow_cpuid(long allowed) { return syscall(SYS_arch_prctl, ARCH_CPUID, allowed); }

static struct cpuid_result cpuid(uint32_t leaf, uint32_t subleaf) {
    struct cpuid_result r;
    allow_cpuid(1);  // fails without CPUID faulting, which is harmless
    __asm__ volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(subleaf));
    allow_cpuid(0);
    return r;
}

static struct cpuid_result masked(uint32_t leaf, uint32_t subleaf) {
    struct cpuid_result r = cpuid(leaf, subleaf);
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
    // AMX tile information, AMX TMUL information, AVX10
    if (leaf == 0x1d || leaf == 0x1e || leaf == 0x24) r = (struct cpuid_result){0, 0, 0, 0};
    return r;
}

// Writes the masked result of CPUID to the registers and skips `length` bytes of code.
static void emulate_cpuid(greg_t *registers, int length) {
    struct cpuid_result r = masked((uint32_t)registers[REG_RAX], (uint32_t)registers[REG_RCX]);
    registers[REG_RAX] = r.a, registers[REG_RBX] = r.b, registers[REG_RCX] = r.c, registers[REG_RDX] = r.d;
    registers[REG_RIP] += length;
}

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)registers[REG_RIP];
    if (code[0] != 0x0f || code[1] != 0xa2) {
        // Not caused by CPUID: restore the previous handler, which handles the repeated fault.
        sigaction(SIGSEGV, &previous, NULL);
        return;
    }
    emulate_cpuid(registers, 2);
}

// The breakpoint replaces the first of the two bytes of CPUID; the second one follows it.
static void on_trap(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)registers[REG_RIP];
    if (code[-1] != 0xcc || code[0] != 0xa2) abort();
    emulate_cpuid(registers, 1);
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
