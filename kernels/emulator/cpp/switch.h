// Switches stacks: in assembly on x86-64 (a few nanoseconds); elsewhere, or with
// CROSSFIX_UCONTEXT, through ucontext (two system calls).
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && !defined(CROSSFIX_UCONTEXT)
extern "C" void crossfix_switch(void** save, void* to);
namespace emulated {
struct Stack {
    void* pointer = nullptr;
};
// Makes the next switch to `stack` begin `entry` near the end of `memory`, `colour` bytes lower:
// stacks at equal offsets would share one set of the L1 cache.
inline void prepare(Stack& stack, char* memory, size_t bytes, size_t colour, void (*entry)()) {
    void** top = reinterpret_cast<void**>(memory + bytes - colour) - 2;
    top[-1] = nullptr;
    top[-2] = reinterpret_cast<void*>(entry);
    stack.pointer = top - 8;  // six saved registers below the return address
}
inline void switch_stack(Stack& save, Stack& to) { crossfix_switch(&save.pointer, to.pointer); }
}  // namespace emulated
#ifdef CROSSFIX_SWITCH_HERE
asm(R"(
.text
.globl crossfix_switch
.hidden crossfix_switch
.type crossfix_switch,@function
crossfix_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp,(%rdi)
    movq %rsi,%rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size crossfix_switch,.-crossfix_switch
)");
#endif
#else
#include <ucontext.h>
namespace emulated {
struct Stack {
    ucontext_t context;
};
inline void prepare(Stack& stack, char* memory, size_t bytes, size_t colour, void (*entry)()) {
    getcontext(&stack.context);
    stack.context.uc_stack.ss_sp = memory;
    stack.context.uc_stack.ss_size = bytes - colour;
    stack.context.uc_link = nullptr;
    makecontext(&stack.context, entry, 0);
}
inline void switch_stack(Stack& save, Stack& to) { swapcontext(&save.context, &to.context); }
}  // namespace emulated
#endif
