#include "common/wire/peer_message.h"

#include <google/protobuf/descriptor.h>

#include <string>
#include <vector>

namespace expertmesh {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

void MakePrintable(const FieldDescriptor* field, size_t most, Message* message) {
  const Reflection& reflection = *message->GetReflection();
  if (!field->is_repeated()) {
    const std::string text = reflection.GetString(*message, field);
    if (std::string printable = PeerText(text, most); printable != text) {
      reflection.SetString(message, field, std::move(printable));
    }
    return;
  }
  for (int i = 0; i < reflection.FieldSize(*message, field); ++i) {
    reflection.SetRepeatedString(message, field, i,
                                 PeerText(reflection.GetRepeatedString(*message, field, i), most));
  }
}

}  // namespace

void MakeTextsPrintable(Message* message, size_t most) {
  const Reflection& reflection = *message->GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(*message, &fields);  // Those that are set.
  for (const FieldDescriptor* field : fields) {
    if (field->type() == FieldDescriptor::TYPE_STRING) {
      MakePrintable(field, most, message);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_repeated()) {
      MakeTextsPrintable(reflection.MutableMessage(message, field), most);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      for (int i = 0; i < reflection.FieldSize(*message, field); ++i) {
        MakeTextsPrintable(reflection.MutableRepeatedMessage(message, field, i), most);
      }
    }
  }
}

}  // namespace expertmesh
