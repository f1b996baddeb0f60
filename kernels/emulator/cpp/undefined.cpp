// What -fsanitize=bounds,alignment,shift,integer-divide-by-zero calls in the checked kernels. The
// compiler passes the line; we add the CUDA thread and end the launch.
#include <cstring>
#include "machine.h"

namespace {
struct Location {
    const char* file;
    uint32_t line, column;
    const char* name() const {
        const char* slash = file ? strrchr(file, '/') : nullptr;
        return slash ? slash + 1 : file ? file : "?";
    }
};
struct Type {
    uint16_t kind, info;
    char name[1];
};
struct Bounds {
    Location place;
    const Type *array, *index;
};
struct Mismatch {
    Location place;
    const Type* type;
    unsigned char alignment_log2, check;
};
struct Shift {
    Location place;
    const Type *left, *right;
};
struct Division {
    Location place;
    const Type* type;
};
using emulated::fail;
}  // namespace

extern "C" {
void __ubsan_handle_out_of_bounds(Bounds* data, uintptr_t index) {
    if (emulated::machine) fail("takes element %ld of %s at %s:%u", long(index), data->array->name, data->place.name(), data->place.line);
}
void __ubsan_handle_type_mismatch_v1(Mismatch* data, uintptr_t address) {
    if (!emulated::machine || !address) return;  // null faults on its own
    fail("uses a misaligned address as %s at %s:%u: it is no multiple of %lu", data->type->name, data->place.name(), data->place.line, 1ul << data->alignment_log2);
}
void __ubsan_handle_shift_out_of_bounds(Shift* data, uintptr_t, uintptr_t by) {
    if (emulated::machine) fail("shifts %s by %ld at %s:%u", data->left->name, long(by), data->place.name(), data->place.line);
}
void __ubsan_handle_divrem_overflow(Division* data, uintptr_t, uintptr_t) {
    if (emulated::machine) fail("divides by zero at %s:%u", data->place.name(), data->place.line);
}
}
