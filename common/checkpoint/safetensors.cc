#include "common/checkpoint/safetensors.h"

#include <filesystem>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "common/json/json_text.h"
#include "nlohmann/json.hpp"

namespace expertmesh::checkpoint {
namespace {

constexpr absl::string_view kSingleFile = "model.safetensors";
constexpr absl::string_view kIndexFile = "model.safetensors.index.json";

// File name to the tensors it should hold.
using WeightMap = absl::btree_map<std::string, std::vector<std::string>>;

bool Exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// A checkpoint must not be able to name files elsewhere on the machine.
bool IsPlainFileName(absl::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find('/') == absl::string_view::npos && name.find('\0') == absl::string_view::npos;
}

absl::StatusOr<WeightMap> ReadIndex(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxSafetensorsHeaderBytes));
  ASSIGN_OR_RETURN(const nlohmann::json index, ParseJson(text, path));
  const auto map = index.find("weight_map");
  if (!index.is_object() || map == index.end() || !map->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": weight_map must be an object"));
  }
  WeightMap files;
  for (const auto& item : map->items()) {
    if (!item.value().is_string() || !IsPlainFileName(item.value().get_ref<const std::string&>())) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": weight_map of tensor ", Quoted(item.key()),
                       " must be the name of a file in this folder, not ",
                       Quoted(item.value().dump(-1, ' ', true))));
    }
    files[item.value().get_ref<const std::string&>()].push_back(item.key());
  }
  if (files.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": weight_map names no tensor"));
  }
  return files;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsReader>> SafetensorsReader::OpenFile(
    const std::string& path) {
  std::unique_ptr<SafetensorsReader> reader(new SafetensorsReader(path));
  RETURN_IF_ERROR(reader->AddFile(path, nullptr));
  return reader;
}

absl::StatusOr<std::unique_ptr<SafetensorsReader>> SafetensorsReader::OpenFolder(
    const std::string& directory) {
  const std::string folder(absl::StripSuffix(directory, "/"));
  const std::string single = absl::StrCat(folder, "/", kSingleFile);
  if (Exists(single)) {
    return OpenFile(single);
  }
  const std::string index = absl::StrCat(folder, "/", kIndexFile);
  if (!Exists(index)) {
    return absl::NotFoundError(absl::StrCat(folder, ": holds neither ", kSingleFile, " nor ",
                                            kIndexFile,
                                            "; only safetensors checkpoints can be read"));
  }
  ASSIGN_OR_RETURN(const WeightMap files, ReadIndex(index));
  std::unique_ptr<SafetensorsReader> reader(new SafetensorsReader(folder));
  for (const auto& [name, tensors] : files) {
    const std::string path = absl::StrCat(folder, "/", name);
    if (!Exists(path)) {
      return absl::NotFoundError(absl::StrCat(path, ": named by ", kIndexFile, " (for tensor ",
                                              Quoted(tensors.front()),
                                              ") but missing; download it again"));
    }
    RETURN_IF_ERROR(reader->AddFile(path, &tensors));
  }
  return reader;
}

absl::Status SafetensorsReader::AddFile(const std::string& path, const WantedNames* wanted) {
  ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  absl::StatusOr<SafetensorsHeader> parsed = ParseSafetensorsHeader(file->bytes(), path);
  RETURN_IF_ERROR(file->CheckUnchanged());
  ASSIGN_OR_RETURN(SafetensorsHeader header, std::move(parsed));
  file->AdviseRandom();
  const size_t index = files_.size();
  const auto add = [&](const std::string& name, SafetensorsEntry entry) {
    TensorView view;
    view.dtype = entry.dtype;
    view.shape = std::move(entry.shape);
    view.data = file->data() + entry.begin;
    view.bytes = entry.end - entry.begin;
    view.file = index;
    tensors_.emplace(name, std::move(view));
  };
  if (wanted == nullptr) {
    for (auto& [name, entry] : header.tensors) {
      add(name, std::move(entry));
    }
  } else {
    for (const std::string& name : *wanted) {
      const auto found = header.tensors.find(name);
      if (found == header.tensors.end()) {
        return absl::NotFoundError(absl::StrCat(path, ": tensor ", Quoted(name),
                                                " is missing, but ", kIndexFile,
                                                " says that it is here"));
      }
      add(name, std::move(found->second));
    }
  }
  if (files_.empty()) {
    metadata_ = std::move(header.metadata);
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::StatusOr<const TensorView*> SafetensorsReader::Find(absl::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::NotFoundError(absl::StrCat(source_, ": has no tensor ", Quoted(name)));
  }
  return &found->second;
}

std::pair<const MappedFile*, size_t> SafetensorsReader::FileOf(const uint8_t* data) const {
  for (const std::unique_ptr<MappedFile>& file : files_) {
    if (data >= file->data() && data < file->data() + file->size()) {
      return {file.get(), static_cast<size_t>(data - file->data())};
    }
  }
  return {nullptr, 0};
}

absl::Status SafetensorsReader::CheckUnchanged(const uint8_t* data) const {
  const auto [file, offset] = FileOf(data);
  return file == nullptr ? absl::OkStatus() : file->CheckUnchanged();
}

absl::Status SafetensorsReader::CheckUnchanged() const {
  for (const std::unique_ptr<MappedFile>& file : files_) {
    RETURN_IF_ERROR(file->CheckUnchanged());
  }
  return absl::OkStatus();
}

void SafetensorsReader::WillNeed(const uint8_t* data, size_t bytes) const {
  if (const auto [file, offset] = FileOf(data); file != nullptr) {
    file->WillNeed(offset, bytes);
  }
}

void SafetensorsReader::DontNeed(const uint8_t* data, size_t bytes) const {
  if (const auto [file, offset] = FileOf(data); file != nullptr) {
    file->DontNeed(offset, bytes);
  }
}

std::string SafetensorsReader::Identity() const {
  std::string text;
  for (const std::unique_ptr<MappedFile>& file : files_) {
    absl::StrAppend(&text, std::filesystem::path(file->path()).filename().string(), " ",
                    file->identity(), "\n");
  }
  return text;
}

}  // namespace expertmesh::checkpoint
