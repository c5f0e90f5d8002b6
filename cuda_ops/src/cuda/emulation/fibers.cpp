#include "fibers.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>

// A swap of two stacks is twenty instructions: swapcontext would ask the system for the signal mask each time.
#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__)) && !defined(OPS_UCONTEXT)
#define OPS_SWAP_IN_ASSEMBLY
#else
#include <ucontext.h>
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef OPS_SWAP_IN_ASSEMBLY
extern "C" void ops_swap_stacks(void** save, void* load);  // pushes what a called function must keep, and pops it from the other stack
#ifdef __x86_64__
asm(R"(
.text
.p2align 4
.hidden ops_swap_stacks
.globl ops_swap_stacks
.type ops_swap_stacks, @function
ops_swap_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size ops_swap_stacks, .-ops_swap_stacks
)");
constexpr std::size_t kKept = 8, kReturn = 6;  // words pushed, the address to return to and one that aligns; the place of that address
#else
asm(R"(
.text
.p2align 4
.hidden ops_swap_stacks
.globl ops_swap_stacks
.type ops_swap_stacks, %function
ops_swap_stacks:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size ops_swap_stacks, .-ops_swap_stacks
)");
constexpr std::size_t kKept = 20, kReturn = 11;
#endif
#endif

namespace ops::cuda::emulation {
namespace {

constexpr std::size_t kStack = 128 * 1024;  // touched pages only take memory
const std::size_t kGuard = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));

void* caller = nullptr;  // the stack pointer or context outside of all fibers
#ifdef __SANITIZE_ADDRESS__
const void* caller_stack = nullptr;
std::size_t caller_size = 0;
#endif

}  // namespace

Fiber::Fiber(void (*entry)()) {
  stack_ = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (stack_ == MAP_FAILED) throw std::bad_alloc();
  mprotect(stack_, kGuard, PROT_NONE);  // too deep a call ends the process in place of writing elsewhere
#ifdef OPS_SWAP_IN_ASSEMBLY
  auto* top = reinterpret_cast<std::uintptr_t*>(static_cast<char*>(stack_) + kGuard + kStack) - kKept;
  std::memset(top, 0, kKept * sizeof *top);
  top[kReturn] = reinterpret_cast<std::uintptr_t>(entry);
  saved_ = top;
#else
  auto* context = new ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = static_cast<char*>(stack_) + kGuard;
  context->uc_stack.ss_size = kStack;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  saved_ = context;
#endif
}

Fiber::~Fiber() {
#ifndef OPS_SWAP_IN_ASSEMBLY
  delete static_cast<ucontext_t*>(saved_);
#endif
#ifdef __SANITIZE_ADDRESS__  // what functions that never returned have marked
  __asan_unpoison_memory_region(static_cast<char*>(stack_) + kGuard, kStack);
#endif
  munmap(stack_, kGuard + kStack);
}

void Fiber::resume() {
#ifdef __SANITIZE_ADDRESS__
  void* mine = nullptr;
  __sanitizer_start_switch_fiber(&mine, static_cast<char*>(stack_) + kGuard, kStack);
#endif
#ifdef OPS_SWAP_IN_ASSEMBLY
  ops_swap_stacks(&caller, saved_);
#else
  ucontext_t here;
  caller = &here;
  swapcontext(&here, static_cast<ucontext_t*>(saved_));
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(mine, nullptr, nullptr);
#endif
}

void Fiber::leave() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&sanitizer_, caller_stack, caller_size);
#endif
#ifdef OPS_SWAP_IN_ASSEMBLY
  ops_swap_stacks(&saved_, caller);
#else
  swapcontext(static_cast<ucontext_t*>(saved_), static_cast<ucontext_t*>(caller));
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(sanitizer_, &caller_stack, &caller_size);
#endif
}

void Fiber::entered() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &caller_stack, &caller_size);
#endif
}

}  // namespace ops::cuda::emulation
