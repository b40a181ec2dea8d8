//! Requests with one item.

use bridgebook::proto::v1;

use crate::support::Tenant;

pub fn step(tenant: &Tenant, step: v1::NewStep) -> v1::RecordStepRequest {
    v1::RecordStepRequest {
        namespace: tenant.namespace.clone(),
        step: Some(step),
    }
}

pub fn steps(tenant: &Tenant, step: v1::NewStep) -> v1::BatchRecordStepsRequest {
    v1::BatchRecordStepsRequest {
        namespace: tenant.namespace.clone(),
        steps: vec![step],
    }
}

pub fn stamp(tenant: &Tenant, stamp: v1::NewStamp) -> v1::RecordStampRequest {
    v1::RecordStampRequest {
        namespace: tenant.namespace.clone(),
        stamp: Some(stamp),
    }
}

pub fn stamps(tenant: &Tenant, stamp: v1::NewStamp) -> v1::BatchRecordStampsRequest {
    v1::BatchRecordStampsRequest {
        namespace: tenant.namespace.clone(),
        stamps: vec![stamp],
    }
}

pub fn record(tenant: &Tenant, transition: v1::NewTransition) -> v1::RecordTransitionRequest {
    v1::RecordTransitionRequest {
        namespace: tenant.namespace.clone(),
        transition: Some(transition),
    }
}

pub fn records(
    tenant: &Tenant,
    transition: v1::NewTransition,
) -> v1::BatchRecordTransitionsRequest {
    v1::BatchRecordTransitionsRequest {
        namespace: tenant.namespace.clone(),
        transitions: vec![transition],
    }
}
