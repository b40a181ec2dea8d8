//! The reflection service (`grpc.reflection`, v1 and v1alpha), as its protocol defines it.
//!
//! tonic-reflection's own service ends the stream at the first unknown name. Clients such as
//! grpcurl and Postman ask for several names on one stream, and expect an error for each unknown
//! one.

use std::sync::Arc;

use futures_util::{StreamExt, stream::BoxStream};
use prost::Message;
use prost_reflect::{DescriptorError, DescriptorPool, FileDescriptor};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::pb::{
    self,
    v1::{
        ErrorResponse, ExtensionNumberResponse, ExtensionRequest, FileDescriptorResponse,
        ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    },
};

use crate::{
    domain::error::Error,
    rpc::limits::ReflectionRate,
    util::excerpt::{MAX_VALUE, excerpt},
};

/// The service, for both versions. Cheap to clone.
#[derive(Clone)]
pub struct Reflection {
    pool: Arc<DescriptorPool>,
}

/// An answer, or the code and the text of an error.
type Answer = Result<MessageResponse, (Code, String)>;

impl Reflection {
    /// Makes a service that describes the contract, and all that a client needs beside it.
    ///
    /// # Errors
    /// If the descriptors are invalid.
    pub fn new(contract: &[u8]) -> Result<Self, DescriptorError> {
        let mut pool = DescriptorPool::new();
        for set in [
            contract,
            // Lets grpcurl decode the details of errors.
            tonic_types::pb::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            pb::v1::FILE_DESCRIPTOR_SET,
            pb::v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            add(&mut pool, DescriptorPool::decode(set)?)?;
        }
        Ok(Reflection {
            pool: Arc::new(pool),
        })
    }

    fn respond(&self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let answer = match &request.message_request {
            Some(MessageRequest::FileByFilename(name)) => {
                file(self.pool.get_file_by_name(name), "file", name)
            }
            Some(MessageRequest::FileContainingSymbol(name)) => {
                file(self.file_of_symbol(name), "symbol", name)
            }
            Some(MessageRequest::FileContainingExtension(extension)) => {
                let name = &extension.containing_type;
                file(self.file_of_extension(extension), "extension of", name)
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => self.extension_numbers(name),
            Some(MessageRequest::ListServices(_)) => Ok(self.services()),
            None => Err((Code::InvalidArgument, "message_request is required".into())),
        };
        let answer = answer.unwrap_or_else(|(code, error_message)| {
            MessageResponse::ErrorResponse(ErrorResponse {
                error_code: code.into(),
                error_message,
            })
        });
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(answer),
        }
    }

    fn services(&self) -> MessageResponse {
        let services = self.pool.services().map(|service| ServiceResponse {
            name: service.full_name().to_owned(),
        });
        MessageResponse::ListServicesResponse(ListServiceResponse {
            service: services.collect(),
        })
    }

    /// Finds the file that defines a type, a service, an extension or a member of one of them.
    fn file_of_symbol(&self, name: &str) -> Option<FileDescriptor> {
        self.file_of_type(name)
            .or_else(|| self.file_of_member(name))
    }

    fn file_of_type(&self, name: &str) -> Option<FileDescriptor> {
        let pool = &self.pool;
        let message = pool.get_message_by_name(name).map(|it| it.parent_file());
        message
            .or_else(|| pool.get_enum_by_name(name).map(|it| it.parent_file()))
            .or_else(|| pool.get_service_by_name(name).map(|it| it.parent_file()))
            .or_else(|| pool.get_extension_by_name(name).map(|it| it.parent_file()))
    }

    fn file_of_member(&self, name: &str) -> Option<FileDescriptor> {
        let (parent, member) = name.rsplit_once('.')?;
        if let Some(message) = self.pool.get_message_by_name(parent) {
            let is_field = message.get_field_by_name(member).is_some();
            if is_field || message.oneofs().any(|it| it.name() == member) {
                return Some(message.parent_file());
            }
        }
        if let Some(service) = self.pool.get_service_by_name(parent) {
            let is_method = service.methods().any(|it| it.name() == member);
            return is_method.then(|| service.parent_file());
        }
        // The values of an enum are named as its siblings.
        let mut enums = self.pool.all_enums();
        let of_value = enums.find(|it| it.values().any(|value| value.full_name() == name));
        of_value.map(|it| it.parent_file())
    }

    fn file_of_extension(&self, request: &ExtensionRequest) -> Option<FileDescriptor> {
        let message = self.pool.get_message_by_name(&request.containing_type)?;
        let number = request.extension_number.try_into().ok()?;
        Some(message.get_extension(number)?.parent_file())
    }

    fn extension_numbers(&self, name: &str) -> Answer {
        let message = self.pool.get_message_by_name(name);
        let message = message.ok_or_else(|| not_found("type", name))?;
        let numbers = message.extensions().map(|it| it.number().try_into());
        Ok(MessageResponse::AllExtensionNumbersResponse(
            ExtensionNumberResponse {
                base_type_name: name.to_owned(),
                extension_number: numbers.filter_map(Result::ok).collect(),
            },
        ))
    }
}

/// Adds files, but not those of which another file has the types already: google.rpc's common files
/// have several names.
fn add(pool: &mut DescriptorPool, more: DescriptorPool) -> Result<(), DescriptorError> {
    for file in more.files() {
        let is_known = |name: &str| pool.get_message_by_name(name).is_some();
        if !file.messages().any(|message| is_known(message.full_name())) {
            pool.add_file_descriptor_proto(file.file_descriptor_proto().clone())?;
        }
    }
    Ok(())
}

fn file(found: Option<FileDescriptor>, kind: &str, name: &str) -> Answer {
    let found = found.ok_or_else(|| not_found(kind, name))?;
    Ok(MessageResponse::FileDescriptorResponse(
        FileDescriptorResponse {
            file_descriptor_proto: vec![found.encode_to_vec()],
        },
    ))
}

fn not_found(kind: &str, name: &str) -> (Code, String) {
    let name = excerpt(name, MAX_VALUE);
    (Code::NotFound, format!("{kind} \"{name}\" not found"))
}

/// Converts a message of one version into the same message of the other one: the versions differ
/// only in the name of their package.
fn convert<M: Message + Default>(message: &impl Message) -> Result<M, Status> {
    M::decode(message.encode_to_vec().as_slice()).map_err(|error| Error::Malformed(error).into())
}

/// Implements the service in one version.
macro_rules! serve {
    ($version:ident) => {
        #[tonic::async_trait]
        impl pb::$version::server_reflection_server::ServerReflection for Reflection {
            type ServerReflectionInfoStream =
                BoxStream<'static, Result<pb::$version::ServerReflectionResponse, Status>>;

            async fn server_reflection_info(
                &self,
                requests: Request<Streaming<pb::$version::ServerReflectionRequest>>,
            ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                let (service, rate) = (self.clone(), ReflectionRate::of(&requests));
                let responses = requests.into_inner().then(move |request| {
                    let (service, rate) = (service.clone(), rate.clone());
                    async move {
                        let request = convert(&request?)?;
                        if let Some(rate) = rate {
                            rate.request().await;
                        }
                        convert(&service.respond(request))
                    }
                });
                Ok(Response::new(responses.boxed()))
            }
        }
    };
}

serve!(v1);
serve!(v1alpha);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;

    #[test]
    fn the_descriptors_are_complete() {
        let reflection = Reflection::new(proto::DESCRIPTORS).unwrap();
        for name in [
            "bridgebook.v1.Workflow",
            "google.rpc.Status",
            "google.rpc.ErrorInfo",
            "google.protobuf.Timestamp",
            "grpc.health.v1.Health.Watch",
            "grpc.health.v1.HealthCheckResponse.SERVING",
            "grpc.reflection.v1alpha.ServerReflection",
        ] {
            assert!(reflection.file_of_symbol(name).is_some(), "{name}");
        }
        for name in ["", ".", "bridgebook.v1", "bridgebook.v1.Workflow.no"] {
            assert!(reflection.file_of_symbol(name).is_none(), "{name}");
        }
    }
}
