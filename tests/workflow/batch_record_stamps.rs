use bridgebook::proto::v1::{
    BatchRecordStampsRequest, NewStamp, record_stamp_result::Result as Outcome,
};
use tonic::Code;

use crate::support::{App, Failure, Tenant, failure, new_id};

async fn record(tenant: &Tenant, stamps: Vec<NewStamp>) -> Result<Vec<Outcome>, tonic::Status> {
    let request = BatchRecordStampsRequest {
        namespace: tenant.namespace.clone(),
        stamps,
    };
    let answer = tenant.client.clone().batch_record_stamps(request).await?;
    let results = answer.into_inner().results.into_iter();
    Ok(results
        .map(|result| result.result.expect("a result"))
        .collect())
}

fn stamp(hash: &str) -> NewStamp {
    NewStamp {
        file_hash: hash.into(),
        ..NewStamp::default()
    }
}

#[tokio::test]
async fn invalid_items_fail_and_valid_ones_are_stored() {
    let (app, tenant) = App::with_tenant().await;
    let mut stamps: Vec<_> = (0..1000)
        .map(|number| stamp(&format!("h{number}")))
        .collect();
    stamps[500].file_hash = "not a hash".into();
    stamps[700].workflow_id = new_id();
    let results = record(&tenant, stamps).await.unwrap();
    for (number, result) in results.into_iter().enumerate() {
        match (number, result) {
            (500, Outcome::Error(error)) => assert_eq!(error.code, Code::InvalidArgument as i32),
            (700, Outcome::Error(error)) => assert_eq!(error.code, Code::NotFound as i32),
            (_, Outcome::Response(response)) => {
                assert_eq!(response.stamp.unwrap().file_hash, format!("h{number}"));
            }
            (_, Outcome::Error(error)) => panic!("{error:?}"),
        }
    }
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM metadata_stamps")
            .await,
        998
    );
}

#[tokio::test]
async fn a_batch_has_1_to_1000_items() {
    let (_app, tenant) = App::with_tenant().await;
    for count in [0, 1001] {
        let failed = failure(record(&tenant, vec![stamp("a"); count]).await);
        assert_eq!(failed, Failure::invalid(&["stamps"]));
    }
}
