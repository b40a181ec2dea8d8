use bridgebook::proto::v1::{
    BatchRecordStepsRequest, NewStep, RecordStepResponse, record_step_result::Result as Outcome,
};
use futures_util::future::join_all;
use tonic::{Code, Status};

use crate::support::{App, Failure, Tenant, failure, new_id};

/// Returns the result of each item; a failed item looks like a failed call.
type Results = Vec<Result<RecordStepResponse, Status>>;

async fn record(tenant: &Tenant, steps: Vec<NewStep>) -> Result<Results, Status> {
    let request = BatchRecordStepsRequest {
        namespace: tenant.namespace.clone(),
        steps,
    };
    let answer = tenant.client.clone().batch_record_steps(request).await?;
    let results = answer.into_inner().results.into_iter();
    Ok(results
        .map(|result| match result.result.expect("a result") {
            Outcome::Response(response) => Ok(response),
            Outcome::Error(error) => {
                let details = prost::Message::encode_to_vec(&error);
                Err(Status::with_details(
                    Code::from(error.code),
                    error.message,
                    details.into(),
                ))
            }
        })
        .collect())
}

#[tokio::test]
async fn results_are_in_the_order_of_the_items() {
    let (_app, tenant) = App::with_tenant().await;
    let workflows = join_all((0..10).map(|_| tenant.start())).await;
    let steps = (0..1000).map(|order| tenant.new_step(&workflows[order as usize % 10], order));
    let results = record(&tenant, steps.collect()).await.unwrap();
    assert_eq!(results.len(), 1000);
    for (order, result) in results.into_iter().enumerate() {
        let step = result.unwrap().step.unwrap();
        assert_eq!(step.step_order, order as i32);
        assert_eq!(step.workflow_id, workflows[order % 10].id);
    }
    assert_eq!(tenant.get(&workflows[3]).await.steps.len(), 100);
}

#[tokio::test]
async fn invalid_items_fail_and_valid_ones_are_stored() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let good = |order| tenant.new_step(&workflow, order);
    let taken = NewStep {
        id: new_id(),
        ..good(0)
    };
    record(&tenant, vec![taken.clone()]).await.unwrap();
    let items = vec![
        good(1),
        NewStep {
            step_order: -1,
            step_name: "\0".into(),
            ..good(2)
        },
        NewStep {
            workflow_id: new_id(),
            ..good(3)
        },
        NewStep {
            step_order: 9,
            ..taken.clone()
        },
        taken,
        good(4),
    ];
    let results = record(&tenant, items).await.unwrap();
    let created: Vec<_> = results
        .iter()
        .map(|r| r.as_ref().ok().map(|r| r.created))
        .collect();
    assert_eq!(
        created,
        [Some(true), None, None, None, Some(false), Some(true)]
    );
    let failures = results.into_iter().filter(Result::is_err).map(failure);
    let expected = [
        Failure::invalid(&["steps[1].step_name", "steps[1].step_order"]),
        Failure::no_workflow(),
        Failure::id_conflict(),
    ];
    let sorted = |mut failure: Failure| {
        failure.fields.sort();
        failure
    };
    assert_eq!(failures.map(sorted).collect::<Vec<_>>(), expected);
    let orders = tenant
        .get(&workflow)
        .await
        .steps
        .into_iter()
        .map(|step| step.step_order);
    assert_eq!(orders.collect::<Vec<_>>(), [0, 1, 4]);
}

#[tokio::test]
async fn one_id_twice_in_a_batch_is_stored_once() {
    let (_app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let step = NewStep {
        id: new_id(),
        ..tenant.new_step(&workflow, 1)
    };
    let other = NewStep {
        step_order: 2,
        ..step.clone()
    };
    let results = record(&tenant, vec![step.clone(), step, other])
        .await
        .unwrap();
    let created: Vec<_> = results
        .iter()
        .map(|r| r.as_ref().ok().map(|r| r.created))
        .collect();
    assert_eq!(created, [Some(true), Some(false), None]);
    assert_eq!(tenant.get(&workflow).await.steps.len(), 1);
}

#[tokio::test]
async fn a_batch_has_1_to_1000_items() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    for count in [0, 1001] {
        let steps = (0..count).map(|order| tenant.new_step(&workflow, order));
        let failed = failure(record(&tenant, steps.collect()).await);
        assert_eq!(failed, Failure::invalid(&["steps"]));
    }
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM workflow_steps")
            .await,
        0
    );
}
