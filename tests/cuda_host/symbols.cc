#include "tests/cuda_host/symbols.h"

#include <cxxabi.h>
#include <elf.h>
#include <execinfo.h>
#include <link.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "tests/cuda_host/die.h"

namespace expertmesh::cuda_host {
namespace {

struct Symbol {
  uintptr_t address;
  size_t bytes;
  std::string name;  // Mangled.
};

// What the linker wrote into the file of the program, or of the module that it opened.
class Program {
 public:
  static const Program& Get() {
    static const Program* const program = new Program();
    return *program;
  }

  const Symbol* FunctionAround(uintptr_t address) const {
    auto after = std::upper_bound(functions_.begin(), functions_.end(), address,
                                  [](uintptr_t a, const Symbol& s) { return a < s.address; });
    if (after == functions_.begin()) {
      return nullptr;
    }
    const Symbol& found = *std::prev(after);
    return address <= found.address + found.bytes ? &found : nullptr;
  }
  const std::vector<Symbol>& variables() const { return variables_; }

 private:
  Program();
  template <typename T>
  const T* At(uint64_t offset) const {
    return reinterpret_cast<const T*>(file_.data() + offset);
  }

  std::string file_;
  std::vector<Symbol> functions_;  // By address.
  std::vector<Symbol> variables_;
};

// The program or shared object that this is linked into.
struct Object {
  uintptr_t base = 0;  // What is added to its addresses.
  std::string path;
};

int TakeIfItHasThis(dl_phdr_info* info, size_t /*bytes*/, void* out) {
  const auto here = reinterpret_cast<uintptr_t>(&TakeIfItHasThis);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && here >= begin && here < begin + segment.p_memsz) {
      // The program itself has no name here.
      const std::string name = info->dlpi_name;
      *static_cast<Object*>(out) = {info->dlpi_addr, name.empty() ? "/proc/self/exe" : name};
      return 1;
    }
  }
  return 0;
}

Object ThisObject() {
  Object object;
  dl_iterate_phdr(&TakeIfItHasThis, &object);
  return object;
}

Program::Program() {
  const Object object = ThisObject();
  std::ifstream in(object.path, std::ios::binary);
  file_.assign(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  if (file_.size() < sizeof(ElfW(Ehdr))) {
    Die("cannot read the program's own file");
  }
  const uintptr_t base = object.base;
  const auto* header = At<ElfW(Ehdr)>(0);
  const auto* sections = At<ElfW(Shdr)>(header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) {
      continue;
    }
    const char* names = At<char>(sections[sections[i].sh_link].sh_offset);
    const auto* symbols = At<ElfW(Sym)>(sections[i].sh_offset);
    for (size_t s = 0; s < sections[i].sh_size / sizeof(ElfW(Sym)); ++s) {
      const int type = symbols[s].st_info & 0xf;
      const Symbol symbol{base + symbols[s].st_value, symbols[s].st_size,
                          names + symbols[s].st_name};
      if (type == STT_FUNC && symbols[s].st_size > 0) {
        functions_.push_back(symbol);
      } else if (type == STT_OBJECT && absl::StartsWith(symbol.name, "_ZZ")) {
        variables_.push_back(symbol);
      }
    }
  }
  std::sort(functions_.begin(), functions_.end(),
            [](const Symbol& a, const Symbol& b) { return a.address < b.address; });
  file_ = {};
}

std::string Demangled(const std::string& name) {
  int status = 0;
  char* readable = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string result = status == 0 ? readable : name;
  std::free(readable);
  for (const char* noise : {"(anonymous namespace)::", "expertmesh::", "void "}) {
    for (size_t at = result.find(noise); at != std::string::npos; at = result.find(noise)) {
      result.erase(at, std::strlen(noise));
    }
  }
  // Up to the parameters: a parenthesis that is in no template's argument.
  int depth = 0;
  for (size_t at = 0; at < result.size(); ++at) {
    depth += result[at] == '<' ? 1 : result[at] == '>' ? -1 : 0;
    if (result[at] == '(' && depth == 0) {
      return result.substr(0, at);
    }
  }
  return result;
}

// Functions of a stack that are named.
constexpr size_t kNamed = 4;

// Whether a function is one of the toolkit's.
bool IsCall(absl::string_view name) {
  absl::ConsumePrefix(&name, "cudaError ");  // Templates are named with what they return.
  return (absl::ConsumePrefix(&name, "cuda") || absl::ConsumePrefix(&name, "cublas")) &&
         !name.empty() && absl::ascii_isupper(static_cast<unsigned char>(name.front()));
}

}  // namespace

std::string FunctionAt(const void* address) {
  const Symbol* symbol = Program::Get().FunctionAround(reinterpret_cast<uintptr_t>(address));
  return symbol == nullptr ? "?" : Demangled(symbol->name);
}

const std::vector<Variable>& SharedVariablesOf(const void* kernel) {
  static absl::Mutex mutex;
  static auto* const known = new std::map<const void*, std::vector<Variable>>();
  const absl::MutexLock lock(&mutex);
  const auto [entry, is_new] = known->try_emplace(kernel);
  const Symbol* symbol = Program::Get().FunctionAround(reinterpret_cast<uintptr_t>(kernel));
  if (is_new && symbol != nullptr) {
    // A variable of function _ZN4room6KernelEPf is _ZZN4room6KernelEPfE6shared.
    const std::string prefix = absl::StrCat("_ZZ", symbol->name.substr(2), "E");
    for (const Symbol& variable : Program::Get().variables()) {
      if (absl::StartsWith(variable.name, prefix)) {
        entry->second.push_back({reinterpret_cast<char*>(variable.address), variable.bytes});
      }
    }
  }
  return entry->second;
}

std::vector<void*> Stack() {
  void* frames[24];
  const int count = backtrace(frames, 24);
  return std::vector<void*>(frames, frames + count);
}

std::string Describe(const std::vector<void*>& stack) {
  std::vector<std::string> names;
  for (void* frame : stack) {
    const std::string name = FunctionAt(static_cast<char*>(frame) - 1);
    if (IsCall(name)) {
      names.clear();  // What it called is the harness.
    } else if (name != "?" && !absl::StartsWith(name, "testing::")) {
      names.push_back(name);
    }
  }
  names.resize(std::min(names.size(), kNamed));
  return names.empty() ? "?" : absl::StrJoin(names, " < ");
}

}  // namespace expertmesh::cuda_host
