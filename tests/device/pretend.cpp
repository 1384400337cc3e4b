// A device named "pretend": memory of the processor that torch believes to be elsewhere.
//
// Every operator copies what it is given to the processor, computes there and copies back; but
// first it looks where its operands are, and refuses those of two devices as a GPU would.

#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_local_scalar_dense_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_cpu_dispatch.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/set_cpu_dispatch.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

using at::Tensor;
using std::optional;

constexpr auto kind = c10::DeviceType::PrivateUse1;
const c10::Device only(kind, 0);
const c10::Stream stream(c10::Stream::DEFAULT, only);

// --- what torch asks of a device: memory, streams that are always done, a context --------------

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    void* data = c10::alloc_cpu(size);
    return {data, data, &c10::free_cpu, only};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &c10::free_cpu; }
  void copy_data(void* to, const void* from, size_t size) const override {
    default_copy_data(to, from, size);
  }
};
Memory memory;
REGISTER_ALLOCATOR(kind, &memory)

struct Guard final : c10::impl::NoOpDeviceGuardImpl<kind> {
  c10::Device getDevice() const override { return only; }
  c10::Device exchangeDevice(c10::Device) const override { return only; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  c10::Stream getStream(c10::Device) const noexcept override { return stream; }
  c10::Stream getDefaultStream(c10::Device) const override { return stream; }
  c10::Stream getNewStream(c10::Device, int) const override { return stream; }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeDevice(c10::DeviceIndex) const override {}
  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, c10::DeviceIndex) const noexcept override {}
};
namespace at::detail {
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)
}

struct Context final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};
Context context;

// --- tensors: made, looked at in another shape, and copied from and to the processor ------------

constexpr c10::DispatchKeySet key(c10::DispatchKey::PrivateUse1);

Tensor here(const Tensor& tensor) {
  return tensor.is_cpu() ? tensor
                         : at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(),
                                         tensor.options().device(at::kCPU));
}

Tensor copied(const Tensor& from, const Tensor& to, bool) {
  here(to).copy_(here(from));
  return to;
}

Tensor copy_of_any_size(const Tensor& from, const Tensor& to) {
  at::native::resize_(to, from.sizes(), {});
  return copied(from, to, false);
}

Tensor empty(c10::IntArrayRef shape, optional<c10::ScalarType> type, optional<c10::Layout>,
             optional<c10::Device>, optional<bool>, optional<c10::MemoryFormat> format) {
  return at::detail::empty_generic(shape, &memory, key, c10::dtype_or_default(type), format);
}

Tensor empty_strided(c10::IntArrayRef shape, c10::IntArrayRef strides,
                     optional<c10::ScalarType> type, optional<c10::Layout>,
                     optional<c10::Device>, optional<bool>) {
  return at::detail::empty_strided_generic(shape, strides, &memory, key,
                                           c10::dtype_or_default(type));
}

c10::Scalar item(const Tensor& tensor) { return at::native::_local_scalar_dense_cpu(here(tensor)); }

Tensor view(const Tensor& tensor, c10::SymIntArrayRef shape) {
  return at::native::view(tensor, C10_AS_INTARRAYREF_SLOW(shape));
}

Tensor reshape_alias(const Tensor& tensor, c10::SymIntArrayRef shape, c10::SymIntArrayRef strides) {
  return at::native::_reshape_alias(tensor, C10_AS_INTARRAYREF_SLOW(shape),
                                    C10_AS_INTARRAYREF_SLOW(strides));
}

const Tensor& resize(const Tensor& tensor, c10::SymIntArrayRef shape,
                     optional<c10::MemoryFormat> format) {
  return at::native::resize_(tensor, C10_AS_INTARRAYREF_SLOW(shape), format);
}

Tensor& set_storage(Tensor& tensor, c10::Storage storage) {
  return at::native::set_(tensor, storage);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copied);
  m.impl("_copy_from_and_resize", copy_of_any_size);
  m.impl("_local_scalar_dense", item);
  m.impl("as_strided", at::cpu::as_strided_symint);
  m.impl("view", view);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("unfold", at::native::unfold);
  m.impl("resize_", resize);
  m.impl("set_.source_Tensor", at::native::set_tensor_);
  m.impl("set_.source_Storage", set_storage);
  m.impl("set_.source_Storage_storage_offset",
         static_cast<Tensor& (*)(Tensor&, c10::Storage, int64_t, c10::IntArrayRef,
                                 c10::IntArrayRef)>(at::cpu::set_));
}

// --- everything else is computed on the processor, if all of it is on this device ---------------

void compute(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& name = op.schema().operator_name().name;
  // An index may be on either device, as with a GPU; and so may a lone number.
  bool indexed = name.find("index") != std::string::npos;
  bool near = false, far = false;
  auto look = [&](const Tensor& tensor) {
    if (tensor.defined() && tensor.dim() > 0) (tensor.is_cpu() ? near : far) = true;
  };
  for (const auto& value : torch::jit::last(stack, op.schema().arguments().size())) {
    if (value.isTensor()) look(value.toTensor());
    if (value.isTensorList())
      for (const auto& tensor : value.toTensorVector()) look(tensor);
  }
  TORCH_CHECK(indexed || !(near && far), name, " got tensors of two devices");
  at::native::cpu_fallback(op, stack);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  at::RegisterPrivateUse1HooksInterface(&context);
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&compute>());
}
