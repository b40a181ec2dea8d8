//! Between the messages of `admin_service.proto` and the domain. Inbound
//! conversions name every bad field; outbound ones cannot fail.

mod inbound;
mod outbound;
