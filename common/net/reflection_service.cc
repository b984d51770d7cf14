#include "common/net/reflection_service.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <memory>
#include <set>
#include <utility>

#include "common/base/peer_text.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"

namespace expertmesh::net {
namespace {

namespace reflection = grpc::reflection::v1alpha;
using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;

constexpr char kV1Alpha[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
constexpr char kV1[] = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

// A file that is spoken of here under another name than the one it is compiled under.
struct Alias {
  const char* compiled;
  const char* name;
  const char* package;
};
constexpr Alias kAliases[] = {
    // Details of errors are google.rpc's, on the wire.
    {"common/wire/error_details.proto", "google/rpc/error_details.proto", "google.rpc"},
    // Both versions of reflection are one protocol.
    {"grpc/reflection/v1alpha/reflection.proto", "grpc/reflection/v1/reflection.proto",
     "grpc.reflection.v1"},
};

// `name` of a type, with `to` in place of package `from`.
void Move(const std::string& from, const std::string& to, std::string* name) {
  const std::string prefix = "." + from + ".";
  if (name->rfind(prefix, 0) == 0) {
    *name = "." + to + "." + name->substr(prefix.size());
  }
}

void MoveTypes(const std::string& from, const std::string& to,
               google::protobuf::DescriptorProto* message) {
  for (auto& field : *message->mutable_field()) {
    Move(from, to, field.mutable_type_name());
    if (field.type_name().empty()) {
      field.clear_type_name();
    }
  }
  for (auto& nested : *message->mutable_nested_type()) {
    MoveTypes(from, to, &nested);
  }
}

void AddAlias(const Alias& alias, DescriptorPool* pool) {
  const FileDescriptor* compiled = DescriptorPool::generated_pool()->FindFileByName(alias.compiled);
  if (compiled == nullptr) {
    return;
  }
  google::protobuf::FileDescriptorProto file;
  compiled->CopyTo(&file);
  for (auto& message : *file.mutable_message_type()) {
    MoveTypes(compiled->package(), alias.package, &message);
  }
  for (auto& service : *file.mutable_service()) {
    for (auto& method : *service.mutable_method()) {
      Move(compiled->package(), alias.package, method.mutable_input_type());
      Move(compiled->package(), alias.package, method.mutable_output_type());
    }
  }
  file.set_name(alias.name);
  file.set_package(alias.package);
  pool->BuildFile(file);
}

// Everything that is compiled into this program, and the aliases.
const DescriptorPool* KnownTypes() {
  static const DescriptorPool* const pool = [] {
    auto* made = new DescriptorPool(DescriptorPool::generated_pool());
    for (const Alias& alias : kAliases) {
      AddAlias(alias, made);
    }
    return made;
  }();
  return pool;
}

void SetNotFound(reflection::ServerReflectionResponse* response, const std::string& what) {
  response->mutable_error_response()->set_error_code(static_cast<int>(absl::StatusCode::kNotFound));
  response->mutable_error_response()->set_error_message("not known here: " + PeerText(what));
}

// The file and what it imports, each once.
void AddFile(const FileDescriptor* file, std::set<const FileDescriptor*>* seen,
             reflection::FileDescriptorResponse* response) {
  if (!seen->insert(file).second) {
    return;
  }
  google::protobuf::FileDescriptorProto proto;
  file->CopyTo(&proto);
  file->CopyJsonNameTo(&proto);  // As protoc's descriptors have them: what tools print.
  response->add_file_descriptor_proto(proto.SerializeAsString());
  for (int i = 0; i < file->dependency_count(); ++i) {
    AddFile(file->dependency(i), seen, response);
  }
}

void SetFile(const FileDescriptor* file, const std::string& what,
             reflection::ServerReflectionResponse* response) {
  if (file == nullptr) {
    SetNotFound(response, what);
    return;
  }
  std::set<const FileDescriptor*> seen;
  AddFile(file, &seen, response->mutable_file_descriptor_response());
}

void SetExtensionNumbers(const std::string& type, reflection::ServerReflectionResponse* response) {
  const DescriptorPool* pool = KnownTypes();
  const google::protobuf::Descriptor* message = pool->FindMessageTypeByName(type);
  if (message == nullptr) {
    SetNotFound(response, type);
    return;
  }
  std::vector<const google::protobuf::FieldDescriptor*> extensions;
  pool->FindAllExtensions(message, &extensions);
  auto* numbers = response->mutable_all_extension_numbers_response();
  numbers->set_base_type_name(type);
  for (const google::protobuf::FieldDescriptor* extension : extensions) {
    numbers->add_extension_number(extension->number());
  }
}

void SetFileOfExtension(const reflection::ExtensionRequest& asked,
                        reflection::ServerReflectionResponse* response) {
  const DescriptorPool* pool = KnownTypes();
  const google::protobuf::Descriptor* message =
      pool->FindMessageTypeByName(asked.containing_type());
  const google::protobuf::FieldDescriptor* extension =
      message == nullptr ? nullptr : pool->FindExtensionByNumber(message, asked.extension_number());
  SetFile(extension == nullptr ? nullptr : extension->file(), asked.containing_type(), response);
}

class ReflectionHandler final : public StreamHandler {
 public:
  ReflectionHandler(std::shared_ptr<const std::vector<std::string>> services,
                    std::shared_ptr<ServerStreamSink> sink)
      : services_(std::move(services)), sink_(std::move(sink)) {}

  void OnFrame(Frame frame) override {
    const auto request = ParseRequest<reflection::ServerReflectionRequest>(frame);
    if (!request.ok()) {
      sink_->Fail(request.status());
      return;
    }
    // One that has gone wants no answer.
    sink_->Send(Frame(Answer(*request).SerializeAsString())).IgnoreError();
  }

 private:
  reflection::ServerReflectionResponse Answer(
      const reflection::ServerReflectionRequest& request) const {
    const DescriptorPool* pool = KnownTypes();
    reflection::ServerReflectionResponse response;
    response.set_valid_host(request.host());
    *response.mutable_original_request() = request;
    switch (request.message_request_case()) {
      case reflection::ServerReflectionRequest::kFileByFilename:
        SetFile(pool->FindFileByName(request.file_by_filename()), request.file_by_filename(),
                &response);
        break;
      case reflection::ServerReflectionRequest::kFileContainingSymbol:
        SetFile(pool->FindFileContainingSymbol(request.file_containing_symbol()),
                request.file_containing_symbol(), &response);
        break;
      case reflection::ServerReflectionRequest::kFileContainingExtension:
        SetFileOfExtension(request.file_containing_extension(), &response);
        break;
      case reflection::ServerReflectionRequest::kAllExtensionNumbersOfType:
        SetExtensionNumbers(request.all_extension_numbers_of_type(), &response);
        break;
      case reflection::ServerReflectionRequest::kListServices:
        for (const std::string& service : *services_) {
          response.mutable_list_services_response()->add_service()->set_name(service);
        }
        break;
      case reflection::ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
        response.mutable_error_response()->set_error_code(
            static_cast<int>(absl::StatusCode::kInvalidArgument));
        response.mutable_error_response()->set_error_message("nothing was asked for");
        break;
    }
    return response;
  }

  const std::shared_ptr<const std::vector<std::string>> services_;
  const std::shared_ptr<ServerStreamSink> sink_;
};

}  // namespace

std::vector<RawStreamMethod> ReflectionMethods(std::vector<std::string> services) {
  const auto shared = std::make_shared<const std::vector<std::string>>(std::move(services));
  const auto open = [shared](std::shared_ptr<ServerStreamSink> sink, const CallContextPtr&) {
    return std::make_unique<ReflectionHandler>(shared, std::move(sink));
  };
  return {{kV1Alpha, open}, {kV1, open}};
}

}  // namespace expertmesh::net
