# Results on a file system that outlives every task, artefacts and answers of jobs in S3; all encrypted
# by one key.

resource "aws_kms_key" "this" {
  description             = "Results, artefacts and logs of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json
}

resource "aws_efs_file_system" "results" {
  encrypted  = true
  kms_key_id = aws_kms_key.this.arn
}

resource "aws_efs_backup_policy" "results" {
  file_system_id = aws_efs_file_system.results.id
  backup_policy {
    status = "ENABLED"
  }
}

resource "aws_efs_mount_target" "results" {
  for_each        = toset(var.subnet_ids)
  file_system_id  = aws_efs_file_system.results.id
  subnet_id       = each.value
  security_groups = [aws_security_group.results.id]
}

resource "aws_efs_access_point" "results" {
  file_system_id = aws_efs_file_system.results.id
  posix_user {
    uid = local.user
    gid = local.user
  }
  root_directory {
    path = "/results"
    creation_info {
      owner_uid   = local.user
      owner_gid   = local.user
      permissions = "0750"
    }
  }
}

resource "aws_s3_bucket" "artefacts" {
  #checkov:skip=CKV_AWS_144:Artefacts are named by their digest and can be trained or copied again.
  #checkov:skip=CKV2_AWS_62:Nothing waits for an event of this bucket.
  bucket_prefix = "${var.name}-artefacts-"
}

resource "aws_s3_bucket" "gold" {
  #checkov:skip=CKV_AWS_144:Jobs can be asked again.
  #checkov:skip=CKV2_AWS_62:Nothing waits for an event of this bucket.
  bucket_prefix = "${var.name}-gold-"
}

resource "aws_s3_bucket" "logs" {
  #checkov:skip=CKV_AWS_144:Access logs are for one region.
  #checkov:skip=CKV2_AWS_62:Nothing waits for an event of this bucket.
  #checkov:skip=CKV_AWS_18:It is the bucket of the access logs.
  #checkov:skip=CKV_AWS_145:A load balancer writes its logs with keys of S3 only.
  bucket_prefix = "${var.name}-logs-"
}

locals {
  buckets = { artefacts = aws_s3_bucket.artefacts, gold = aws_s3_bucket.gold, logs = aws_s3_bucket.logs }
}

resource "aws_s3_bucket_public_access_block" "artefacts" {
  bucket                  = aws_s3_bucket.artefacts.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_public_access_block" "gold" {
  bucket                  = aws_s3_bucket.gold.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_public_access_block" "logs" {
  bucket                  = aws_s3_bucket.logs.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "artefacts" {
  bucket = aws_s3_bucket.artefacts.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_versioning" "gold" {
  bucket = aws_s3_bucket.gold.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_versioning" "logs" {
  bucket = aws_s3_bucket.logs.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "artefacts" {
  bucket = aws_s3_bucket.artefacts.id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.this.arn
    }
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "gold" {
  bucket = aws_s3_bucket.gold.id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.this.arn
    }
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "artefacts" {
  bucket = aws_s3_bucket.artefacts.id
  rule {
    id     = "old-versions"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = 90
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "gold" {
  bucket = aws_s3_bucket.gold.id
  rule {
    id     = "old-versions"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = 90
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id
  rule {
    id     = "old-logs"
    status = "Enabled"
    filter {}
    expiration {
      days = var.log_retention_days
    }
    noncurrent_version_expiration {
      noncurrent_days = 1
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}

resource "aws_s3_bucket_logging" "artefacts" {
  bucket        = aws_s3_bucket.artefacts.id
  target_bucket = aws_s3_bucket.logs.id
  target_prefix = "s3/"
}

resource "aws_s3_bucket_logging" "gold" {
  bucket        = aws_s3_bucket.gold.id
  target_bucket = aws_s3_bucket.logs.id
  target_prefix = "s3/"
}

resource "aws_s3_bucket_policy" "artefacts" {
  bucket = aws_s3_bucket.artefacts.id
  policy = data.aws_iam_policy_document.tls_only["artefacts"].json
}

resource "aws_s3_bucket_policy" "gold" {
  bucket = aws_s3_bucket.gold.id
  policy = data.aws_iam_policy_document.tls_only["gold"].json
}

resource "aws_s3_bucket_policy" "logs" {
  bucket = aws_s3_bucket.logs.id
  policy = data.aws_iam_policy_document.logs.json
}
