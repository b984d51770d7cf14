#include "common/checkpoint/safetensors.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "common/json/json_text.h"

namespace expertmesh::checkpoint {
namespace {

constexpr absl::string_view kSingleFile = "model.safetensors";
bool Exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsReader>> SafetensorsReader::OpenFile(
    const std::string& path) {
  std::unique_ptr<SafetensorsReader> reader(new SafetensorsReader(path));
  ASSIGN_OR_RETURN(std::vector<Found> found, reader->AddFile(path));
  for (Found& tensor : found) {
    reader->tensors_.insert(std::move(tensor));
  }
  return reader;
}

absl::StatusOr<std::unique_ptr<SafetensorsReader>> SafetensorsReader::OpenFolder(
    const std::string& directory) {
  const std::string folder(absl::StripSuffix(directory, "/"));
  const std::string single = absl::StrCat(folder, "/", kSingleFile);
  if (Exists(single)) {
    return OpenFile(single);
  }
  const std::string path = absl::StrCat(folder, "/", kIndexFile);
  if (!Exists(path)) {
    return absl::NotFoundError(absl::StrCat(folder, ": holds neither ", kSingleFile, " nor ",
                                            kIndexFile,
                                            "; only safetensors checkpoints can be read"));
  }
  ASSIGN_OR_RETURN(const WeightIndex index, ReadWeightIndex(path));
  std::unique_ptr<SafetensorsReader> reader(new SafetensorsReader(folder));
  RETURN_IF_ERROR(reader->AddFiles(index));
  return reader;
}

absl::StatusOr<std::vector<SafetensorsReader::Found>> SafetensorsReader::AddFile(
    const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  absl::StatusOr<SafetensorsHeader> parsed = ParseSafetensorsHeader(file->bytes(), path);
  RETURN_IF_ERROR(file->CheckUnchanged());
  ASSIGN_OR_RETURN(SafetensorsHeader header, std::move(parsed));
  file->AdviseRandom();
  std::vector<Found> found;
  found.reserve(header.tensors.size());
  for (auto& [name, entry] : header.tensors) {
    TensorView view;
    view.dtype = entry.dtype;
    view.shape = std::move(entry.shape);
    view.data = file->data() + entry.begin;
    view.bytes = entry.end - entry.begin;
    view.file = files_.size();
    found.emplace_back(name, std::move(view));
  }
  if (files_.empty()) {
    metadata_ = std::move(header.metadata);
  }
  files_.push_back(std::move(file));
  return found;
}

absl::Status SafetensorsReader::AddFiles(const WeightIndex& index) {
  std::vector<Found> others;
  const std::vector<std::string> names = FilesOf(index);
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(source_, "/", name);
    if (!Exists(path)) {
      missing_files_.push_back(name);
      continue;
    }
    ASSIGN_OR_RETURN(std::vector<Found> found, AddFile(path));
    for (Found& tensor : found) {
      const auto listed = index.find(tensor.first);
      if (listed != index.end() && listed->second == name) {
        tensors_.insert(std::move(tensor));
      } else {
        others.push_back(std::move(tensor));
      }
    }
  }
  if (files_.empty()) {
    const auto& [tensor, file] = *index.begin();
    return absl::NotFoundError(absl::StrCat(source_, "/", file, ": named by ", kIndexFile,
                                            " (for tensor ", Quoted(tensor),
                                            ") but missing, as all others; download them again"));
  }
  AddOthers(index, std::move(others));
  NoteAbsent(index);
  if (!missing_files_.empty()) {
    warnings_.push_back(absl::StrCat(
        source_, ": ", missing_files_.size(), " of ", names.size(), " files that ", kIndexFile,
        " names are not here (", missing_files_.front(), missing_files_.size() > 1 ? ", ..." : "",
        "): what they hold cannot be used by this process"));
  }
  return absl::OkStatus();
}

void SafetensorsReader::AddOthers(const WeightIndex& index, std::vector<Found> others) {
  absl::btree_map<std::string, std::vector<TensorView>> by_name;
  for (Found& tensor : others) {
    by_name[tensor.first].push_back(std::move(tensor.second));
  }
  Findings misplaced;
  Findings unlisted;
  for (auto& [name, views] : by_name) {
    const auto listed = index.find(name);
    if (tensors_.contains(name)) {
      continue;
    }
    const std::string& path = PathOf(views.front());
    if (views.size() > 1) {
      ambiguous_[name] = absl::StrCat(source_, ": tensor ", Quoted(name), " is in ", path,
                                      " and in ", PathOf(views.back()), ", and ", kIndexFile,
                                      " names neither of them; correct it");
      continue;
    }
    if (listed == index.end()) {
      unlisted.Add(absl::StrCat("does not list tensor ", Quoted(name), " of ", path));
    } else {
      misplaced.Add(absl::StrCat("has tensor ", Quoted(name), " in ", listed->second,
                                 "; it is taken from ", path));
    }
    views.front().listed = listed != index.end();
    tensors_.emplace(name, std::move(views.front()));
  }
  const std::string source = absl::StrCat(source_, "/", kIndexFile);
  misplaced.Report(source, &warnings_);
  unlisted.Report(source, &warnings_);
}

void SafetensorsReader::NoteAbsent(const WeightIndex& index) {
  Findings nowhere;
  for (const auto& [name, file] : index) {
    if (tensors_.contains(name)) {
      continue;
    }
    absent_.emplace(name, file);
    if (!ambiguous_.contains(name) && !IsMissing(file)) {
      nowhere.Add(absl::StrCat("has tensor ", Quoted(name), " in ", file, ", which does not"));
    }
  }
  nowhere.Report(absl::StrCat(source_, "/", kIndexFile), &warnings_);
}

bool SafetensorsReader::IsMissing(const std::string& file) const {
  return std::binary_search(missing_files_.begin(), missing_files_.end(), file);
}

std::string SafetensorsReader::WhyNotFound(absl::string_view name) const {
  if (const auto found = ambiguous_.find(name); found != ambiguous_.end()) {
    return found->second;
  }
  const auto absent = absent_.find(name);
  if (absent == absent_.end()) {
    return absl::StrCat(source_, ": has no tensor ", Quoted(name));
  }
  const std::string path = absl::StrCat(source_, "/", absent->second);
  return IsMissing(absent->second)
             ? absl::StrCat(path, ": is not here, and by ", kIndexFile, " it holds tensor ",
                            Quoted(name), "; put the file there")
             : absl::StrCat(path, ": tensor ", Quoted(name), " is missing, but ", kIndexFile,
                            " says that it is here");
}

std::string SafetensorsReader::PlaceOf(absl::string_view name) const {
  if (const auto found = tensors_.find(name); found != tensors_.end()) {
    return PathOf(found->second);
  }
  const auto absent = absent_.find(name);
  return absent == absent_.end() ? source_ : absl::StrCat(source_, "/", absent->second);
}

absl::StatusOr<const TensorView*> SafetensorsReader::Find(absl::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::NotFoundError(WhyNotFound(name));
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
