//! Calls that do not follow the protocol: gRPC over HTTP/2, or the contract's list of methods.

use super::describe::{Code, Description};

/// How a call breaks the protocol. Values of the caller are excerpts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The contract has no such method.
    #[error("unknown method {0}; compare the client's contract with the server's")]
    UnknownMethod(String),
    /// Health is not known for such a service.
    #[error(
        "unknown service \"{0}\"; ask for a gRPC service of this server, or for the empty name, which \
         stands for the whole server"
    )]
    UnknownService(String),
    /// The call is not a POST.
    #[error("HTTP method {0} is not supported; a gRPC call is a POST")]
    HttpMethod(String),
    /// The messages have another format.
    #[error(
        "content-type \"{0}\" is not supported; send application/grpc or application/grpc+proto"
    )]
    ContentType(String),
    /// The call does not say the format of its messages.
    #[error("the call has no content-type; send application/grpc or application/grpc+proto")]
    NoContentType,
    /// The call has several content types.
    #[error("the call has {0} headers content-type; send it once, as application/grpc")]
    ManyContentTypes(usize),
    /// The bytes around the message are not those of gRPC.
    #[error("the request is not framed as gRPC requires: {0}")]
    Framing(&'static str),
    /// The messages are compressed.
    #[error("compressed messages are not supported; send them without grpc-encoding")]
    Encoding,
    /// The headers are larger than the limit, in bytes.
    #[error("the headers of the call are too large; the server accepts at most {0} bytes")]
    HeadersTooLarge(usize),
    /// The call has more messages than its RPC takes.
    #[error("the call has more than one request message; this RPC takes exactly one")]
    TooManyMessages,
}

impl ProtocolError {
    pub(super) fn describe(&self) -> Description {
        let new = Description::new;
        match self {
            ProtocolError::UnknownMethod(method) => {
                new(Code::Unimplemented, "METHOD_UNKNOWN").with("method", method)
            }
            ProtocolError::UnknownService(service) => {
                new(Code::NotFound, "SERVICE_UNKNOWN").with("service", service)
            }
            ProtocolError::HttpMethod(method) => {
                new(Code::Unimplemented, "HTTP_METHOD_UNSUPPORTED").with("http_method", method)
            }
            ProtocolError::ContentType(value) => {
                new(Code::Unimplemented, "CONTENT_TYPE_UNSUPPORTED").with("content_type", value)
            }
            ProtocolError::NoContentType | ProtocolError::ManyContentTypes(_) => {
                new(Code::Unimplemented, "CONTENT_TYPE_UNSUPPORTED")
            }
            ProtocolError::Framing(_) => new(Code::InvalidArgument, "MALFORMED_MESSAGE"),
            ProtocolError::Encoding => new(Code::Unimplemented, "ENCODING_UNSUPPORTED"),
            ProtocolError::HeadersTooLarge(_) => new(Code::ResourceExhausted, "HEADERS_TOO_LARGE"),
            ProtocolError::TooManyMessages => new(Code::InvalidArgument, "TOO_MANY_MESSAGES"),
        }
    }
}

impl From<ProtocolError> for super::Error {
    fn from(error: ProtocolError) -> Self {
        super::Error::Protocol(error)
    }
}
