use bridgebook::proto::v1::{
    BatchRecordStampsRequest, ListStampsRequest, ListStampsResponse, MetadataStamp, NewStamp,
    RecordStampRequest, record_stamp_result,
};
use serde_json::json;
use tonic::Status;

use crate::support::{App, Failure, Tenant, document, failure};

async fn list(tenant: &Tenant, request: ListStampsRequest) -> Result<ListStampsResponse, Status> {
    let request = ListStampsRequest {
        namespace: tenant.namespace.clone(),
        ..request
    };
    tenant
        .client
        .clone()
        .list_stamps(request)
        .await
        .map(tonic::Response::into_inner)
}

async fn record(tenant: &Tenant, file_hash: &str, workflow_id: &str) -> MetadataStamp {
    let stamp = NewStamp {
        file_hash: file_hash.into(),
        workflow_id: workflow_id.into(),
        ..NewStamp::default()
    };
    let request = RecordStampRequest {
        namespace: tenant.namespace.clone(),
        stamp: Some(stamp),
    };
    let answer = tenant.client.clone().record_stamp(request).await.unwrap();
    answer.into_inner().stamp.unwrap()
}

#[tokio::test]
async fn hashes_are_stored_to_the_letter_and_compared_as_text() {
    let (_app, tenant) = App::with_tenant().await;
    let hashes = ["ab", "AB", "sha256:ab", "SHA256:ab"];
    for hash in hashes {
        assert_eq!(record(&tenant, hash, "").await.file_hash, hash);
    }
    for hash in hashes {
        let request = ListStampsRequest {
            file_hash: hash.into(),
            ..ListStampsRequest::default()
        };
        let found = list(&tenant, request).await.unwrap().stamps;
        let found: Vec<_> = found.iter().map(|it| it.file_hash.as_str()).collect();
        assert_eq!(found, [hash]);
    }
}

#[tokio::test]
async fn every_filter_narrows_the_list() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let first = record(&tenant, "a", "").await;
    let second = record(&tenant, "b", &workflow.id).await;
    let third = record(&tenant, "a", &workflow.id).await;
    record(&app.tenant(), "a", "").await;
    let time = second.created_at;
    let cases = [
        (ListStampsRequest::default(), vec![&third, &second, &first]),
        (
            ListStampsRequest {
                file_hash: "a".into(),
                ..Default::default()
            },
            vec![&third, &first],
        ),
        (
            ListStampsRequest {
                workflow_id: workflow.id,
                ..Default::default()
            },
            vec![&third, &second],
        ),
        (
            ListStampsRequest {
                created_after: time,
                ..Default::default()
            },
            vec![&third],
        ),
        (
            ListStampsRequest {
                created_before: time,
                ..Default::default()
            },
            vec![&first],
        ),
        (
            ListStampsRequest {
                file_hash: "zz".into(),
                ..Default::default()
            },
            vec![],
        ),
    ];
    for (number, (request, expected)) in cases.into_iter().enumerate() {
        let stamps = list(&tenant, request).await.unwrap().stamps;
        assert_eq!(stamps.iter().collect::<Vec<_>>(), expected, "case {number}");
    }
}

#[tokio::test]
async fn pages_cover_everything_once() {
    let (_app, tenant) = App::with_tenant().await;
    for _ in 0..7 {
        record(&tenant, "a", "").await;
    }
    let everything = list(&tenant, ListStampsRequest::default())
        .await
        .unwrap()
        .stamps;
    let mut request = ListStampsRequest {
        page_size: 2,
        ..Default::default()
    };
    let mut listed = Vec::new();
    loop {
        let page = list(&tenant, request.clone()).await.unwrap();
        listed.extend(page.stamps);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, everything);
    assert_eq!(listed.len(), 7);
}

/// Large pages are encoded in slices, small ones as a whole.
#[tokio::test]
async fn a_large_page_has_the_rows_of_small_pages() {
    let (_app, tenant) = App::with_tenant().await;
    let stamps = (0..400).map(|number| NewStamp {
        file_hash: format!("hash-{number}"),
        stamp_data: document(json!({"number": number, "text": "x".repeat(number)})),
        ..NewStamp::default()
    });
    let request = BatchRecordStampsRequest {
        namespace: tenant.namespace.clone(),
        stamps: stamps.collect(),
    };
    let recorded = tenant.client.clone().batch_record_stamps(request).await;
    let results = recorded.unwrap().into_inner().results;
    let hashes = results.into_iter().map(|result| match result.result {
        Some(record_stamp_result::Result::Response(it)) => it.stamp.unwrap().file_hash,
        other => panic!("{other:?}"),
    });
    assert!(hashes.eq((0..400).map(|number| format!("hash-{number}"))));

    let page = |page_size, page_token| ListStampsRequest {
        page_size,
        page_token,
        ..ListStampsRequest::default()
    };
    let large = list(&tenant, page(399, String::new())).await.unwrap();
    assert_eq!(large.stamps.len(), 399);
    let (mut rows, mut token) = (Vec::new(), String::new());
    for _ in 0..21 {
        let small = list(&tenant, page(19, token)).await.unwrap();
        rows.extend(small.stamps);
        token = small.next_page_token;
    }
    assert_eq!(rows, large.stamps);
    assert_eq!(token, large.next_page_token);
    let last = list(&tenant, page(399, token)).await.unwrap();
    assert_eq!((last.stamps.len(), last.next_page_token.as_str()), (1, ""));
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    let bad = [
        (
            "page_size",
            ListStampsRequest {
                page_size: -1,
                ..Default::default()
            },
        ),
        (
            "page_token",
            ListStampsRequest {
                page_token: "AAAA".into(),
                ..Default::default()
            },
        ),
        (
            "file_hash",
            ListStampsRequest {
                file_hash: "\0".into(),
                ..Default::default()
            },
        ),
        (
            "workflow_id",
            ListStampsRequest {
                workflow_id: "x".into(),
                ..Default::default()
            },
        ),
        (
            "created_after",
            ListStampsRequest {
                created_after: Some(prost_types::Timestamp {
                    seconds: i64::MAX,
                    nanos: 0,
                }),
                ..Default::default()
            },
        ),
    ];
    for (field, request) in bad {
        assert_eq!(
            failure(list(&tenant, request).await),
            Failure::invalid(&[field])
        );
    }
}
