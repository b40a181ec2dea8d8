DROP TABLE page_token_key;
